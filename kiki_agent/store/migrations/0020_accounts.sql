-- What the platforms state about campaigns, performance and spend, each with the instant it was true.
CREATE TABLE account_campaigns (
    connector TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    platform TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'paused', 'gone')),
    daily_budget_micros INTEGER NOT NULL CHECK (daily_budget_micros >= 0),
    bid_micros INTEGER NOT NULL CHECK (bid_micros >= 0),
    currency TEXT NOT NULL,
    bid_step_micros INTEGER NOT NULL,
    min_bid_micros INTEGER NOT NULL,
    min_budget_micros INTEGER NOT NULL,
    budget_step_micros INTEGER NOT NULL,
    paused_by_us INTEGER NOT NULL DEFAULT 0 CHECK (paused_by_us IN (0, 1)),
    bid_set_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (connector, campaign_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE account_performance (
    connector TEXT NOT NULL,
    campaign_id TEXT NOT NULL,
    metric_date TEXT NOT NULL,
    impressions INTEGER NOT NULL,
    clicks INTEGER NOT NULL,
    conversions INTEGER NOT NULL,
    spend_micros INTEGER NOT NULL,
    revenue_micros INTEGER NOT NULL,
    PRIMARY KEY (connector, metric_date, campaign_id)
) STRICT, WITHOUT ROWID;

-- One row per connector: how old its facts are, and today's spend as last reported ({campaign: [micros, rate]}).
CREATE TABLE account_reports (
    connector TEXT PRIMARY KEY,
    campaigns_as_of INTEGER NOT NULL DEFAULT 0,
    performance_as_of INTEGER NOT NULL DEFAULT 0,
    evidence_as_of INTEGER NOT NULL DEFAULT 0,
    final_before TEXT NOT NULL DEFAULT '',
    spend_as_of INTEGER NOT NULL DEFAULT 0,
    spend_date TEXT NOT NULL DEFAULT '',
    spend TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(spend))
) STRICT, WITHOUT ROWID;
