-- The record: hash-chained, append-only. Everything else in this file is a projection of it, or counts beside it.
CREATE TABLE ledger_entries (
    seq INTEGER PRIMARY KEY CHECK (seq > 0),
    at INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind NOT GLOB '*[^a-z_]*'),
    body TEXT NOT NULL CHECK (json_valid(body)),
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    -- Read by the index of decisions; computed from the hashed body, so there is nothing beside it to tamper with.
    connector TEXT GENERATED ALWAYS AS (json_extract(body, '$.connector')) VIRTUAL,
    campaign_id TEXT GENERATED ALWAYS AS (json_extract(body, '$.campaign_id')) VIRTUAL,
    platform TEXT GENERATED ALWAYS AS (json_extract(body, '$.platform')) VIRTUAL,
    source TEXT GENERATED ALWAYS AS (json_extract(body, '$.source')) VIRTUAL
) STRICT;
CREATE INDEX ledger_decisions_campaign ON ledger_entries (campaign_id) WHERE kind = 'decision';
CREATE INDEX ledger_decisions_platform ON ledger_entries (platform) WHERE kind = 'decision';
CREATE INDEX ledger_decisions_source ON ledger_entries (source) WHERE kind = 'decision';

-- INSERT OR REPLACE deletes without firing a DELETE trigger; refusing every number but the next one closes that door.
CREATE TRIGGER ledger_entries_in_order BEFORE INSERT ON ledger_entries
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM ledger_entries)
BEGIN
    SELECT RAISE(ABORT, 'ledger entries are numbered without gaps');
END;
CREATE TRIGGER ledger_entries_no_update BEFORE UPDATE ON ledger_entries
BEGIN
    SELECT RAISE(ABORT, 'ledger entries are never changed');
END;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries
BEGIN
    SELECT RAISE(ABORT, 'ledger entries are never deleted');
END;

-- The decision in force for each campaign, and the tick it came with; ticks since then are counted in one row for all.
CREATE TABLE decision_runs (
    connector TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    bid_micros INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    source TEXT NOT NULL,
    model_version TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    first_tick INTEGER NOT NULL,
    PRIMARY KEY (connector, campaign_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE decision_ticks (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    ticks INTEGER NOT NULL CHECK (ticks >= 0),
    last_at INTEGER NOT NULL
) STRICT;
INSERT INTO decision_ticks (id, ticks, last_at) VALUES (1, 0, -1);

-- Changes meant for platforms, and how each one ended.
CREATE TABLE intents (
    key TEXT PRIMARY KEY,
    connector TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('set_budget', 'adjust_bid', 'set_status', 'place_bid')),
    before INTEGER NOT NULL,
    after INTEGER NOT NULL,
    currency TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    cause TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'accepted', 'rejected', 'unknown')),
    outcome_reason TEXT NOT NULL DEFAULT '',
    vendor_ref TEXT NOT NULL DEFAULT '',
    settled_at INTEGER,
    CHECK ((settled_at IS NOT NULL) = (state IN ('accepted', 'rejected')))
) STRICT, WITHOUT ROWID;
CREATE INDEX intents_sent ON intents (sent_at);
CREATE INDEX intents_unsettled ON intents (connector, sent_at) WHERE state IN ('pending', 'unknown');

-- Shifts of budget between platforms, with a chain of their own.
CREATE TABLE budget_reallocation_log (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    client_id TEXT NOT NULL CHECK (client_id <> ''),
    from_platform TEXT NOT NULL,
    to_platform TEXT NOT NULL,
    amount_shifted_micros INTEGER NOT NULL CHECK (amount_shifted_micros > 0),
    currency TEXT NOT NULL,
    from_efficiency REAL NOT NULL,
    to_efficiency REAL NOT NULL,
    reason TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    run_id TEXT,
    notification_id TEXT,
    prev_hash TEXT NOT NULL CHECK (length(prev_hash) = 64),
    hash TEXT NOT NULL CHECK (length(hash) = 64),
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX budget_reallocation_log_client ON budget_reallocation_log (client_id, timestamp);
CREATE INDEX budget_reallocation_log_pair ON budget_reallocation_log (from_platform, to_platform);
CREATE INDEX budget_reallocation_log_created ON budget_reallocation_log (created_at);

CREATE TRIGGER budget_reallocation_log_in_order BEFORE INSERT ON budget_reallocation_log
WHEN NEW.id IS NOT (SELECT coalesce(max(id), 0) + 1 FROM budget_reallocation_log)
BEGIN
    SELECT RAISE(ABORT, 'reallocations are numbered without gaps');
END;
CREATE TRIGGER budget_reallocation_log_no_update BEFORE UPDATE ON budget_reallocation_log
BEGIN
    SELECT RAISE(ABORT, 'reallocations are never changed');
END;
CREATE TRIGGER budget_reallocation_log_no_delete BEFORE DELETE ON budget_reallocation_log
BEGIN
    SELECT RAISE(ABORT, 'reallocations are never deleted');
END;
