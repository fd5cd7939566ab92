-- Conversions on their way back to the platform that brought the click. What the vendor needs to find the click is
-- encrypted with the key of the person it is about, and goes with it.
CREATE TABLE conversions (
    conversion_id TEXT PRIMARY KEY,
    connector TEXT NOT NULL,
    subject TEXT NOT NULL CHECK (subject <> ''),
    sealed TEXT NOT NULL CHECK (sealed <> ''),
    at INTEGER NOT NULL,
    value_micros INTEGER NOT NULL CHECK (value_micros >= 0),
    ltv_micros INTEGER NOT NULL CHECK (ltv_micros >= 0),
    confidence_permille INTEGER NOT NULL CHECK (confidence_permille BETWEEN 0 AND 1000),
    currency TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'accepted', 'rejected')),
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    reported_at INTEGER NOT NULL,
    settled_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX conversions_queued ON conversions (connector, due_at) WHERE state = 'queued';
CREATE INDEX conversions_subject ON conversions (subject);
CREATE INDEX conversions_reported ON conversions (reported_at);
CREATE TRIGGER conversions_erased BEFORE INSERT ON conversions
WHEN EXISTS (SELECT 1 FROM erasures WHERE subject = NEW.subject)
BEGIN
    SELECT RAISE(ABORT, 'ERASED');
END;
