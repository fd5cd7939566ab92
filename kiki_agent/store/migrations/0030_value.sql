-- Customers as their CRM knows them, what each is predicted to be worth, and the models that said so.
CREATE TABLE customers (
    source_crm TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    acquired_platform TEXT NOT NULL,
    acquired_at INTEGER NOT NULL,
    purchase_count INTEGER NOT NULL CHECK (purchase_count >= 0),
    total_spend_micros INTEGER NOT NULL CHECK (total_spend_micros >= 0),
    last_purchase_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    pending INTEGER NOT NULL DEFAULT 1 CHECK (pending IN (0, 1)),
    PRIMARY KEY (source_crm, customer_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX customers_pending ON customers (source_crm, customer_id) WHERE pending = 1;

-- One row per customer: the prediction in force. `source` says whether a trained model or the prior spoke.
CREATE TABLE ltv_predictions (
    client_id TEXT NOT NULL,
    source_crm TEXT NOT NULL DEFAULT '',
    customer_id TEXT NOT NULL,
    platform TEXT NOT NULL DEFAULT '',
    predicted_ltv_micros INTEGER NOT NULL CHECK (predicted_ltv_micros >= 0),
    lower_micros INTEGER NOT NULL DEFAULT 0,
    upper_micros INTEGER NOT NULL DEFAULT 0,
    confidence_score REAL NOT NULL DEFAULT 0,
    model_version TEXT NOT NULL DEFAULT 'prior',
    source TEXT NOT NULL DEFAULT 'ai' CHECK (source IN ('ai', 'fallback', 'prior')),
    predicted_at INTEGER NOT NULL,
    PRIMARY KEY (client_id, source_crm, customer_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX ltv_predictions_platform ON ltv_predictions (client_id, platform, predicted_ltv_micros, predicted_at);
CREATE INDEX ltv_predictions_at ON ltv_predictions (client_id, predicted_at, customer_id, predicted_ltv_micros);

CREATE TABLE ltv_models (
    version TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    params TEXT NOT NULL CHECK (json_valid(params))
) STRICT, WITHOUT ROWID;

CREATE TABLE crm_sync_state (
    provider TEXT PRIMARY KEY,
    cursor TEXT NOT NULL,
    last_run_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
