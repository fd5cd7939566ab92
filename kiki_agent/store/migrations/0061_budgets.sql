-- Budgets as entities of their own, and what stands behind a bid.
ALTER TABLE account_campaigns ADD COLUMN budget_id TEXT NOT NULL DEFAULT '';
ALTER TABLE account_campaigns ADD COLUMN steers_bid INTEGER NOT NULL DEFAULT 1 CHECK (steers_bid IN (0, 1));
ALTER TABLE account_campaigns ADD COLUMN steers_budget INTEGER NOT NULL DEFAULT 1 CHECK (steers_budget IN (0, 1));
ALTER TABLE account_campaigns ADD COLUMN learning INTEGER NOT NULL DEFAULT 0 CHECK (learning IN (0, 1));
ALTER TABLE intents ADD COLUMN budget_id TEXT NOT NULL DEFAULT '';
ALTER TABLE intents ADD COLUMN ltv_micros INTEGER NOT NULL DEFAULT 0;
ALTER TABLE intents ADD COLUMN confidence_permille INTEGER NOT NULL DEFAULT 0;
ALTER TABLE intents ADD COLUMN note TEXT NOT NULL DEFAULT '';
