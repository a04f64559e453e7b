-- Another payment is refused after too many declined ones lately, of a token or a store: counted at every authorization, newest first.
CREATE INDEX transactions_declined ON payment_transactions (store_id, environment, concluded_at DESC) INCLUDE (actor)
 WHERE operation = 'authorize' AND status = 'declined';
