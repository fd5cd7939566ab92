-- Settings that a person changed while the agent ran; they go before the configuration until they are taken back.
CREATE TABLE setting_overrides (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
