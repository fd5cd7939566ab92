-- The instants of the calls a vendor's window still counts, so that a restart does not begin it anew.
CREATE TABLE call_windows (
    connector TEXT PRIMARY KEY,
    calls BLOB NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
