-- What a refund is for, by the lines of its order, where the shop said it.
ALTER TABLE payment_transactions ADD COLUMN lines jsonb NOT NULL DEFAULT '[]';

-- As before, and what a refund is for stays as it was asked, too.
CREATE OR REPLACE FUNCTION ledger_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ranks CONSTANT text[] := ARRAY['pending', 'unknown', 'failed', 'declined', 'succeeded'];
    comes_back boolean;
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'ledger rows are never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    comes_back := OLD.operation = 'refund' AND NEW.status IN ('failed', 'declined') AND NEW.processed_amount = 0;
    IF array_position(ranks, NEW.status) < array_position(ranks, OLD.status) AND NOT comes_back
       AND NOT (OLD.operation = 'refund' AND OLD.status = 'unknown' AND NEW.provider_txn_id IS NOT NULL) THEN
        RAISE EXCEPTION 'a transaction cannot go from % back to %', OLD.status, NEW.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.operation = 'refund' AND OLD.status IN ('failed', 'declined') AND OLD.processed_amount = 0 AND NOT comes_back THEN
        RAISE EXCEPTION 'a refund that has come back cannot become %', NEW.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.id, NEW.payment_intent_id, NEW.operation, NEW.amount, NEW.idempotency_key, NEW.command_id,
        NEW.provider_idempotency_key, NEW.provider_account, NEW.request, NEW.lines)
       IS DISTINCT FROM
       (OLD.id, OLD.payment_intent_id, OLD.operation, OLD.amount, OLD.idempotency_key, OLD.command_id,
        OLD.provider_idempotency_key, OLD.provider_account, OLD.request, OLD.lines) THEN
        RAISE EXCEPTION 'amounts, keys and requests in the ledger never change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
