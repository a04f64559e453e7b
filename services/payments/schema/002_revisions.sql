-- Counts every change of an order's row, so that a decision made on what was read can insist that it is still so.
ALTER TABLE orders ADD COLUMN revision bigint NOT NULL DEFAULT 0;

-- The unique index over intent, operation and key finds an intent's rows as well.
DROP INDEX transactions_of_intent;

-- What was abandoned and still holds or has money; that is seldom any, however many were abandoned.
DROP INDEX intents_abandoned;
CREATE INDEX intents_to_give_back ON payment_intents (id)
 WHERE abandoned AND (authorized_amount > captured_amount + voided_amount OR captured_amount > refunded_amount + charged_back_amount);
