-- Recorded tax follows the money: what went back, and what comes back after all (a further capture, a refund that failed, a dispute that
-- was won), which is recorded as a document of its own.
ALTER TABLE tax_documents
    DROP CONSTRAINT tax_documents_kind_check,
    DROP CONSTRAINT tax_documents_check,
    ADD CONSTRAINT kinds CHECK (kind IN ('sale', 'reversal', 'reinstatement')) NOT VALID,
    -- `reverses` names the sale that a later document corrects, downwards or up again.
    ADD CONSTRAINT corrections CHECK ((kind <> 'sale') = (reverses IS NOT NULL AND reference IS NOT NULL)) NOT VALID;
ALTER TABLE tax_documents VALIDATE CONSTRAINT kinds;
ALTER TABLE tax_documents VALIDATE CONSTRAINT corrections;

-- One news of a payment corrects a sale once: downwards, up, or both where its parts are shared otherwise than before.
DROP INDEX one_reversal_a_reference;
CREATE UNIQUE INDEX one_reversal_a_reference ON tax_documents (store_id, environment, reference, kind) WHERE kind <> 'sale';
DROP INDEX reversals_of_sale;
CREATE INDEX corrections_of_sale ON tax_documents (reverses) WHERE kind <> 'sale';

-- What went back of what the order owes, part by part, and what each was for where that was said.
ALTER TABLE order_payments ADD COLUMN returned jsonb NOT NULL DEFAULT '[]';
UPDATE order_payments
   SET returned = jsonb_build_array(jsonb_build_object('transaction_id', intent_id, 'amount', refunded_amount))
 WHERE refunded_amount > 0;
-- What the order does not owe is none of its sale's.
UPDATE order_payments SET captured_amount = 0 WHERE status IN ('superseded', 'abandoned');

-- Finalizing was asked for before anything was captured: the document that it becomes once something is.
ALTER TABLE tax_quotes ADD COLUMN document_id uuid;

-- What comes back after all counts as what went back did: in a row of its own.
ALTER TABLE tax_sales_totals
    DROP CONSTRAINT tax_sales_totals_kind_check,
    ADD CONSTRAINT kinds CHECK (kind IN ('sale', 'reversal', 'reinstatement'));
