-- Counts every change of an order's row, so that a decision made on what was read can insist that it is still so.
ALTER TABLE orders ADD COLUMN revision bigint NOT NULL DEFAULT 0;

-- The unique index over intent, operation and key finds an intent's rows as well.
DROP INDEX transactions_of_intent;
