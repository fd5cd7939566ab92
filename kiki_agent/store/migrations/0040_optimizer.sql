-- Cycles of the optimizer, the shifts it carries out, and the budgets platforms started with.
CREATE TABLE optimizer_runs (
    run_id TEXT PRIMARY KEY,
    started_at INTEGER NOT NULL,
    average_efficiency REAL,
    best_platform TEXT,
    details TEXT NOT NULL CHECK (json_valid(details)),
    shifts INTEGER NOT NULL CHECK (shifts >= 0),
    status TEXT NOT NULL CHECK (status IN ('shifted', 'on_plan', 'cannot_say'))
) STRICT, WITHOUT ROWID;
CREATE INDEX optimizer_runs_started ON optimizer_runs (started_at);

CREATE TABLE shifts (
    shift_id TEXT PRIMARY KEY,
    run_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    from_connector TEXT NOT NULL,
    to_connector TEXT NOT NULL,
    from_platform TEXT NOT NULL,
    to_platform TEXT NOT NULL,
    wanted_micros INTEGER NOT NULL CHECK (wanted_micros > 0),
    moved_micros INTEGER NOT NULL DEFAULT 0 CHECK (moved_micros >= 0),
    currency TEXT NOT NULL,
    from_efficiency TEXT NOT NULL,
    to_efficiency TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence_as_of INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (state IN ('decreasing', 'increasing', 'returning', 'done', 'returned', 'failed')),
    closed_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX shifts_open ON shifts (state, at);
CREATE INDEX shifts_from ON shifts (from_connector, at);

CREATE TABLE start_budgets (
    connector TEXT PRIMARY KEY,
    budget_micros INTEGER NOT NULL CHECK (budget_micros >= 0),
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
