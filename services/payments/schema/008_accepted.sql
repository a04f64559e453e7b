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

-- A payment that took money holds its order, also when all of it went back: the order's content stays what was paid for.
UPDATE payment_intents SET holds_order = true WHERE captured_amount > 0 AND NOT holds_order AND NOT superseded AND NOT abandoned;

-- A release that ended a conflict leaves nothing to look at.
UPDATE payment_intents
   SET attention = NULL
 WHERE status = 'voided' AND attention IS NOT NULL AND capture_reserved = 0 AND captured_amount + refunded_amount + charged_back_amount = 0;

UPDATE payment_intents i
   SET overpaid_amount = excess.amount,
       attention = coalesce(attention || '; ', '') || excess.amount || ' was taken that the order does not owe'
  FROM (SELECT id, captured_amount - refunded_amount - charged_back_amount
                   - CASE WHEN superseded OR abandoned THEN 0 ELSE requested_amount END AS amount
          FROM payment_intents) AS excess
 WHERE i.id = excess.id AND excess.amount > 0;
