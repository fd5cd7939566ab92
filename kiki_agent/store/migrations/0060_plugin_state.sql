-- What plugins remember between runs: cursors, tokens' expiry, ids they gave out. Never money, never a decision.
CREATE TABLE plugin_state (
    instance_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (instance_id, key)
) STRICT, WITHOUT ROWID;
