-- What the change governor remembers: levers left alone, orders of people under way, spend by the hour.
CREATE TABLE lever_holds (
    connector TEXT NOT NULL,
    entity TEXT NOT NULL,
    lever TEXT NOT NULL CHECK (lever IN ('budget', 'bid', 'status')),
    campaign_id TEXT NOT NULL,
    value INTEGER NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('outside', 'pinned', 'rollback')),
    since INTEGER NOT NULL,
    until INTEGER,
    PRIMARY KEY (connector, entity, lever)
) STRICT, WITHOUT ROWID;

CREATE TABLE orders (
    order_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('suggestion', 'rollback')),
    subject TEXT NOT NULL,
    changes TEXT NOT NULL CHECK (json_valid(changes)),
    made_by TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'done', 'partial', 'failed')),
    note TEXT NOT NULL DEFAULT '',
    closed_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_open ON orders (state, made_at);

-- One row per connector and hour: what was spent in it, and the daily budgets that stood at its end.
CREATE TABLE spend_hours (
    connector TEXT NOT NULL,
    hour INTEGER NOT NULL,
    spend_micros INTEGER NOT NULL CHECK (spend_micros >= 0),
    budget_micros INTEGER NOT NULL CHECK (budget_micros >= 0),
    PRIMARY KEY (connector, hour)
) STRICT, WITHOUT ROWID;
CREATE INDEX intents_cause ON intents (cause) WHERE cause <> '';
