-- What people allow, by purpose: the statement in force. The ledger's `consent` entries are the history of it.
-- `subject` stands for a person; who that is, only the file of personal keys knows.
CREATE TABLE consents (
    subject TEXT NOT NULL CHECK (subject <> ''),
    consent_type TEXT NOT NULL
        CHECK (consent_type IN ('marketing', 'analytics', 'targeting', 'profiling', 'data_sharing')),
    status TEXT NOT NULL CHECK (status IN ('GRANTED', 'DENIED', 'REVOKED')),
    source TEXT NOT NULL CHECK (source IN ('api', 'tcf', 'gpp')),
    consent_id TEXT NOT NULL UNIQUE CHECK (consent_id <> ''),
    generation INTEGER NOT NULL CHECK (generation > 0),
    said_at INTEGER NOT NULL,
    granted_at INTEGER,
    revoked_at INTEGER,
    expires_at INTEGER,
    -- JSON list of vendor ids the statement is for; NULL: for everybody this client works with.
    vendors TEXT CHECK (vendors IS NULL OR json_valid(vendors)),
    version TEXT NOT NULL,
    legal_basis TEXT NOT NULL,
    -- What shows that it was said, encrypted with a key of this subject alone.
    evidence TEXT NOT NULL DEFAULT '',
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (subject, consent_type),
    CHECK ((status = 'GRANTED') <= (granted_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX consents_granted ON consents (updated_at) WHERE status = 'GRANTED';

-- Everything on record about one subject, and the bids that stood on one consent.
CREATE INDEX ledger_subject ON ledger_entries (json_extract(body, '$.subject')) WHERE kind IN ('consent', 'privacy');
CREATE INDEX ledger_audit ON ledger_entries (seq) WHERE kind IN ('consent', 'privacy', 'control');
CREATE INDEX reservations_personal ON reservations (basis) WHERE basis <> 'not_personal';

-- The basis of a change that was meant for a platform (M12): what is denied is never written down as meant.
ALTER TABLE intents ADD COLUMN basis TEXT NOT NULL DEFAULT 'not_personal' CHECK (basis <> '' AND basis <> 'denied');
