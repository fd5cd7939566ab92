-- Customers were kept under their own ids. From here on the database knows tokens only: what is dropped here is read
-- again from its sources at the next start, and predicted again.
DELETE FROM customers;
DELETE FROM ltv_predictions;
DELETE FROM crm_sync_state;

-- Who was erased. `mark` is a keyed hash by which a source that still states the person is recognised.
CREATE TABLE erasures (
    mark TEXT NOT NULL CHECK (length(mark) = 64),
    subject TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (mark, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX erasures_subject ON erasures (subject);

-- A page of customers that was on its way while its subject was erased leaves nothing behind.
CREATE TRIGGER customers_erased BEFORE INSERT ON customers
WHEN EXISTS (SELECT 1 FROM erasures WHERE subject = NEW.customer_id)
BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER ltv_predictions_erased BEFORE INSERT ON ltv_predictions
WHEN EXISTS (SELECT 1 FROM erasures WHERE subject = NEW.customer_id)
BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER consents_erased BEFORE INSERT ON consents
WHEN EXISTS (SELECT 1 FROM erasures WHERE subject = NEW.subject)
BEGIN
    SELECT RAISE(ABORT, 'ERASED');
END;

CREATE TABLE privacy_requests (
    request_id TEXT PRIMARY KEY,
    subject TEXT NOT NULL,
    request_type TEXT NOT NULL CHECK (request_type IN ('ACCESS', 'DELETION', 'PORTABILITY', 'RECTIFICATION')),
    status TEXT NOT NULL CHECK (status IN ('PENDING', 'COMPLETED', 'REJECTED')),
    -- Encrypted like all evidence; empty when nobody was named.
    requested_by TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    completed_at INTEGER,
    notes TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE INDEX privacy_requests_subject ON privacy_requests (subject);
CREATE INDEX privacy_requests_at ON privacy_requests (requested_at);
