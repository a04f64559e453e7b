-- Whose doing an event is, so that a delivery can be followed back to the request that brought it about.
ALTER TABLE merchant_events ADD COLUMN correlation_id text NOT NULL DEFAULT '';

-- What is due is taken address by address, so that one that is slow holds up nobody else's.
CREATE INDEX deliveries_due_of_endpoint ON webhook_deliveries (endpoint_id, next_attempt_at) WHERE status = 'pending';
DROP INDEX deliveries_due;
