-- What people were told, and through which channels it reached them.
CREATE TABLE notifications (
    notification_id TEXT PRIMARY KEY,
    severity TEXT NOT NULL CHECK (severity IN ('INFO', 'WARNING', 'CRITICAL')),
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    formatted TEXT NOT NULL,
    metadata TEXT NOT NULL CHECK (json_valid(metadata)),
    created_at INTEGER NOT NULL,
    read_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX notifications_created ON notifications (created_at);

CREATE TABLE notification_deliveries (
    notification_id TEXT NOT NULL REFERENCES notifications (notification_id) ON DELETE CASCADE,
    channel TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'sent', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (notification_id, channel)
) STRICT, WITHOUT ROWID;
CREATE INDEX notification_deliveries_due ON notification_deliveries (status, next_attempt_at);
