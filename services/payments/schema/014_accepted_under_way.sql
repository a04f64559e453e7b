-- An operator may also accept that more is under way than is left; the sum that was accepted is the limit then.
ALTER TABLE payment_intents
    DROP CONSTRAINT captures_fit,
    DROP CONSTRAINT refunds_fit,
    ADD CONSTRAINT captures_fit CHECK (capture_reserved = 0 OR attention IS NOT NULL
        OR captured_amount + capture_reserved + voided_amount <= authorized_amount + coalesce((accepted->>'capture under way')::bigint, 0)),
    ADD CONSTRAINT refunds_fit CHECK (refund_reserved = 0 OR attention IS NOT NULL
        OR refunded_amount + charged_back_amount + refund_reserved <= captured_amount + coalesce((accepted->>'refund under way')::bigint, 0));
