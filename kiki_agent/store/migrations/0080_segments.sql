-- Old entries of the ledger, moved out of the table into files beside the database. The chain runs through them: a
-- segment goes on where the one before it ended, and the table goes on where the last one did.
CREATE TABLE ledger_segments (
    first_seq INTEGER PRIMARY KEY CHECK (first_seq > 0),
    last_seq INTEGER NOT NULL UNIQUE CHECK (last_seq >= first_seq),
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    last_hash BLOB NOT NULL CHECK (length(last_hash) = 32),
    -- Whose ledger it is, as its first entry says.
    owner TEXT NOT NULL
) STRICT;

-- The files of a segment: `links` holds number, instant, kind and hash of every entry, the others the bodies by class.
CREATE TABLE ledger_segment_files (
    first_seq INTEGER NOT NULL REFERENCES ledger_segments (first_seq),
    class TEXT NOT NULL,
    name TEXT NOT NULL UNIQUE CHECK (name <> '' AND name NOT GLOB '*/*'),
    -- Of the text before it was packed.
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    size INTEGER NOT NULL CHECK (size > 0),
    dropped_at INTEGER CHECK (dropped_at IS NULL OR class <> 'links'),
    PRIMARY KEY (first_seq, class)
) STRICT, WITHOUT ROWID;
CREATE INDEX ledger_segment_files_kept ON ledger_segment_files (class) WHERE dropped_at IS NULL;

-- Files that are about to be written or no longer needed. A name leaves this list when its file is on record or gone.
CREATE TABLE ledger_segment_waste (
    name TEXT PRIMARY KEY CHECK (name <> '' AND name NOT GLOB '*/*')
) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_segments_in_order BEFORE INSERT ON ledger_segments
WHEN NEW.first_seq IS NOT (SELECT coalesce(max(last_seq), 0) + 1 FROM ledger_segments)
    OR NEW.last_hash IS NOT (SELECT hash FROM ledger_entries WHERE seq = NEW.last_seq)
    OR NEW.last_seq >= (SELECT max(seq) FROM ledger_entries)
BEGIN
    SELECT RAISE(ABORT, 'a segment holds the oldest entries, and never the last one');
END;
CREATE TRIGGER ledger_segments_no_update BEFORE UPDATE ON ledger_segments
BEGIN
    SELECT RAISE(ABORT, 'segments are never changed');
END;
CREATE TRIGGER ledger_segments_no_delete BEFORE DELETE ON ledger_segments
BEGIN
    SELECT RAISE(ABORT, 'segments are never deleted');
END;
CREATE TRIGGER ledger_segment_files_only_dropped BEFORE UPDATE ON ledger_segment_files
WHEN OLD.dropped_at IS NOT NULL OR NEW.dropped_at IS NULL OR NEW.first_seq IS NOT OLD.first_seq
    OR NEW.class IS NOT OLD.class OR NEW.name IS NOT OLD.name OR NEW.sha256 IS NOT OLD.sha256
    OR NEW.size IS NOT OLD.size
BEGIN
    SELECT RAISE(ABORT, 'files of a segment are never changed');
END;
CREATE TRIGGER ledger_segment_files_no_delete BEFORE DELETE ON ledger_segment_files
BEGIN
    SELECT RAISE(ABORT, 'files of a segment stay on record');
END;

DROP TRIGGER ledger_entries_no_delete;
CREATE TRIGGER ledger_entries_no_delete BEFORE DELETE ON ledger_entries
WHEN OLD.seq > (SELECT coalesce(max(last_seq), 0) FROM ledger_segments)
BEGIN
    SELECT RAISE(ABORT, 'ledger entries are never deleted');
END;
