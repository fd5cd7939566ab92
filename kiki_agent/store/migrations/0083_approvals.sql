-- What stood when a person last approved or lowered a campaign's allocation; what needs approval is counted from it.
CREATE TABLE allocation_bases (
    campaign_id TEXT PRIMARY KEY,
    base_micros INTEGER NOT NULL CHECK (base_micros >= 0),
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO allocation_bases SELECT campaign_id, budget_micros, updated_at FROM budget_allocations;

-- Who turned a switch: http, file, signal, agent; empty for what was turned before this was kept.
ALTER TABLE shield_controls ADD COLUMN set_by TEXT NOT NULL DEFAULT '';
