-- What an operator accepted of a payment that contradicted itself, what was taken beyond what its order owes, and whether the order
-- went on without it.
ALTER TABLE payment_intents
    ADD COLUMN accepted        jsonb   NOT NULL DEFAULT '{}',
    ADD COLUMN overpaid_amount bigint  NOT NULL DEFAULT 0 CHECK (overpaid_amount >= 0),
    ADD COLUMN superseded      boolean NOT NULL DEFAULT false;

UPDATE payment_intents i
   SET superseded = true
  FROM orders o
 WHERE (o.store_id, o.environment, o.id) = (i.store_id, i.environment, i.order_id) AND NOT i.holds_order
   AND ((o.content->>'cancelled')::boolean
        OR o.priced_hash <> (SELECT priced_hash FROM order_checkout_snapshots WHERE id = i.snapshot_id)
        OR EXISTS (SELECT FROM payment_intents newer
                    WHERE (newer.store_id, newer.environment, newer.order_id) = (i.store_id, i.environment, i.order_id) AND newer.id > i.id));

-- A payment that took money and gave it back holds its order now, whose content stays what was paid for.
UPDATE payment_intents SET holds_order = true WHERE status = 'refunded' AND NOT superseded;

UPDATE payment_intents
   SET overpaid_amount = captured_amount - refunded_amount - charged_back_amount,
       attention = captured_amount - refunded_amount - charged_back_amount || ' was taken that the order does not owe'
 WHERE superseded AND attention IS NULL AND captured_amount > refunded_amount + charged_back_amount;
