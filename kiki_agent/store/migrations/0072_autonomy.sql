-- How far the agent may go at each platform, what it suggests where it may not act, and what others changed.
CREATE TABLE autonomy (
    connector TEXT PRIMARY KEY,
    level TEXT NOT NULL CHECK (level IN ('watch', 'suggest', 'act_limited', 'act')),
    limit_permille INTEGER NOT NULL CHECK (limit_permille > 0),
    set_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE suggestions (
    suggestion_id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('change', 'shift')),
    subject TEXT NOT NULL,
    connector TEXT NOT NULL,
    why TEXT NOT NULL,
    held_by TEXT NOT NULL,
    changes TEXT NOT NULL CHECK (json_valid(changes)),
    facts TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(facts)),
    made_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'approved', 'declined', 'stale', 'expired', 'replaced')),
    decided_by TEXT NOT NULL DEFAULT '',
    decided_at INTEGER,
    note TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX suggestions_open ON suggestions (subject) WHERE state = 'open';
CREATE INDEX suggestions_made ON suggestions (made_at);

CREATE TABLE external_edits (
    id INTEGER PRIMARY KEY,
    connector TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    entity TEXT NOT NULL,
    lever TEXT NOT NULL CHECK (lever IN ('budget', 'bid', 'status')),
    before INTEGER NOT NULL,
    after INTEGER NOT NULL,
    source TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX external_edits_at ON external_edits (at);
