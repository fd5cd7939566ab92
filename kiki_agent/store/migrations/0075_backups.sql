-- Backups that were made, as their makers saw them; the note beside each backup is what a restore goes by.
CREATE TABLE backups (
    name TEXT PRIMARY KEY,
    made_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    seq INTEGER NOT NULL,
    head_hash TEXT NOT NULL CHECK (length(head_hash) = 64),
    verified_at INTEGER,
    problem TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
