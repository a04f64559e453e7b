-- What is left of a hold lapses also when some of what was captured went back to the customer.
DROP INDEX intents_expiring;
CREATE INDEX intents_expiring ON payment_intents (authorization_expires_at)
    WHERE status IN ('authorized', 'partially_captured', 'partially_refunded') AND authorized_amount > captured_amount + voided_amount;
