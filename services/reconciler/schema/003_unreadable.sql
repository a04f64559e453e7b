-- A payment in the provider's books that its adapter cannot read is one finding, not the end of the run.
ALTER TABLE drift_items DROP CONSTRAINT drift_items_type_check;
ALTER TABLE drift_items ADD CONSTRAINT drift_items_type_check
    CHECK (type IN ('missing_locally', 'missing_at_provider', 'amount', 'currency', 'status', 'duplicate', 'unreadable'));
