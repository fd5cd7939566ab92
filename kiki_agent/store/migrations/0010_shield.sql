-- What money may do: account days, reported spend, sliding windows, reservations, allocations, controls.
CREATE TABLE spend_days (
    connector TEXT NOT NULL,
    day TEXT NOT NULL CHECK (length(day) = 10),
    currency TEXT NOT NULL,
    cap_micros INTEGER CHECK (cap_micros >= 0),
    reported_micros INTEGER NOT NULL DEFAULT 0 CHECK (reported_micros >= 0),
    placed_micros INTEGER NOT NULL DEFAULT 0 CHECK (placed_micros >= 0),
    reserved_micros INTEGER NOT NULL DEFAULT 0 CHECK (reserved_micros >= 0),
    lease_micros INTEGER NOT NULL DEFAULT 0 CHECK (lease_micros >= 0),
    warned INTEGER NOT NULL DEFAULT 0,
    as_of INTEGER NOT NULL DEFAULT 0,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (connector, day)
) STRICT, WITHOUT ROWID;

-- A day begins once, and none begins before one that has begun.
CREATE TRIGGER spend_days_forward BEFORE INSERT ON spend_days
WHEN EXISTS (SELECT 1 FROM spend_days WHERE connector = NEW.connector AND day >= NEW.day)
BEGIN
    SELECT RAISE(ABORT, 'DAY_REPEATED');
END;
CREATE TRIGGER spend_days_kept BEFORE UPDATE OF connector, day ON spend_days
BEGIN
    SELECT RAISE(ABORT, 'DAY_REPEATED');
END;
-- Second guard: on raising a reservation only, never on booking the truth or lowering a cap.
CREATE TRIGGER spend_days_cap BEFORE UPDATE OF reserved_micros ON spend_days
WHEN NEW.reserved_micros > OLD.reserved_micros
    AND (NEW.cap_micros IS NULL OR NEW.reported_micros + NEW.placed_micros + NEW.reserved_micros > NEW.cap_micros)
BEGIN
    SELECT RAISE(ABORT, 'BUDGET_EXCEEDED');
END;

CREATE TABLE reported_spend (
    connector TEXT NOT NULL,
    day TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    spend_micros INTEGER NOT NULL CHECK (spend_micros >= 0),
    PRIMARY KEY (connector, day, campaign_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE spend_window (
    id INTEGER PRIMARY KEY,
    connector_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros >= 0),
    decision_id TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX spend_window_at ON spend_window (connector_id, at);

CREATE TABLE reservations (
    sequence INTEGER PRIMARY KEY,
    reservation_id TEXT NOT NULL UNIQUE,
    connector TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    amount_micros INTEGER NOT NULL CHECK (amount_micros > 0),
    spent_micros INTEGER NOT NULL DEFAULT 0 CHECK (spent_micros >= 0),
    basis TEXT NOT NULL CHECK (basis <> '' AND basis <> 'denied'),
    allocated INTEGER NOT NULL CHECK (allocated IN (0, 1)),
    state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'released')),
    at INTEGER NOT NULL,
    settled_at INTEGER
) STRICT;
CREATE INDEX reservations_open ON reservations (state) WHERE state = 'reserved';

CREATE TABLE budget_allocations (
    campaign_id TEXT PRIMARY KEY,
    budget_micros INTEGER NOT NULL CHECK (budget_micros > 0),
    currency TEXT NOT NULL,
    spent_micros INTEGER NOT NULL DEFAULT 0 CHECK (spent_micros >= 0),
    reserved_micros INTEGER NOT NULL DEFAULT 0 CHECK (reserved_micros >= 0),
    pacing TEXT NOT NULL DEFAULT 'even' CHECK (pacing IN ('even', 'accelerated', 'custom')),
    start_at INTEGER,
    end_at INTEGER,
    warning_threshold REAL NOT NULL DEFAULT 0.80,
    critical_threshold REAL NOT NULL DEFAULT 0.95,
    status TEXT NOT NULL DEFAULT 'active'
        CHECK (status IN ('active', 'warning', 'exhausted', 'paused', 'pending_approval', 'expired')),
    last_warning_at INTEGER,
    warned INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER budget_allocations_cap BEFORE UPDATE OF reserved_micros ON budget_allocations
WHEN NEW.reserved_micros > OLD.reserved_micros AND NEW.spent_micros + NEW.reserved_micros > NEW.budget_micros
BEGIN
    SELECT RAISE(ABORT, 'BUDGET_EXCEEDED');
END;

-- A commit moves its reservation (reserved_delta) into what it cost (spent_delta).
CREATE TABLE budget_transactions (
    transaction_id TEXT PRIMARY KEY,
    campaign_id TEXT NOT NULL REFERENCES budget_allocations (campaign_id),
    platform TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'commit', 'release', 'refund', 'adjustment')),
    amount_micros INTEGER NOT NULL,
    spent_delta_micros INTEGER NOT NULL,
    reserved_delta_micros INTEGER NOT NULL,
    reservation_id TEXT NOT NULL,
    decision_id TEXT NOT NULL DEFAULT '',
    balance_after_micros INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX budget_transactions_campaign ON budget_transactions (campaign_id, at);
CREATE TRIGGER budget_transactions_no_update BEFORE UPDATE ON budget_transactions
BEGIN
    SELECT RAISE(ABORT, 'budget_transactions is append-only');
END;
CREATE TRIGGER budget_transactions_no_delete BEFORE DELETE ON budget_transactions
BEGIN
    SELECT RAISE(ABORT, 'budget_transactions is append-only');
END;

CREATE TABLE shield_controls (
    control TEXT PRIMARY KEY,
    is_on INTEGER NOT NULL CHECK (is_on IN (0, 1)),
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
