-- A dispute that the merchant won: the provider gives back what it had taken.
ALTER TABLE payment_transactions
    DROP CONSTRAINT payment_transactions_operation_check,
    ADD CONSTRAINT operations CHECK (operation IN ('authorize', 'capture', 'void', 'refund', 'chargeback', 'chargeback_reversal')) NOT VALID;
ALTER TABLE payment_transactions VALIDATE CONSTRAINT operations;
