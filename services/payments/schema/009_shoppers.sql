-- Payments that were submitted: whoever did so was told that the customer must act, so we go on to the capture ourselves.
ALTER TABLE payment_intents ADD COLUMN capture_wanted boolean NOT NULL DEFAULT false;
-- They are few: a capture follows within seconds.
CREATE INDEX intents_to_capture ON payment_intents (id) WHERE capture_wanted AND status = 'authorized';

-- An order with nothing to pay has a payment of nothing.
ALTER TABLE payment_intents
    DROP CONSTRAINT payment_intents_requested_amount_check,
    ADD CONSTRAINT requested_amounts CHECK (requested_amount >= 0) NOT VALID;
ALTER TABLE payment_intents VALIDATE CONSTRAINT requested_amounts;
