"""What payments knows of an order, in SQL."""

SQL = """
    WITH known_intents AS (
        SELECT id, provider, currency
          FROM payment_intents
         WHERE store_id = $1 AND environment = $2 AND order_id = $3
    ), known_transactions AS (
        SELECT t.*, i.provider, i.currency
          FROM known_intents i
          JOIN payment_transactions t ON t.payment_intent_id = i.id
    )
    SELECT h.changed_at AS at, 'status' AS kind, coalesce(h.from_status || ' → ', '') || h.to_status AS title, h.correlation_id, h.actor,
           '' AS subject_id, json_build_object('reason', h.reason, 'source', h.source)::text AS facts
      FROM order_status_history h
     WHERE h.store_id = $1 AND h.environment = $2 AND h.order_id = $3
     UNION ALL
    SELECT s.created_at, 'quote', 'quoted', '', '', s.id::text,
           json_build_object('total', s.total, 'currency', s.currency, 'provider', s.provider, 'expires_at', s.expires_at)::text
      FROM order_checkout_snapshots s
     WHERE s.store_id = $1 AND s.environment = $2 AND s.order_id = $3
     UNION ALL
    SELECT t.created_at, 'transaction', t.operation || ' asked for', t.correlation_id, t.actor, t.id::text,
           json_build_object('amount', t.amount, 'currency', t.currency, 'provider', t.provider, 'source', t.source,
                             'reason', nullif(t.reason, ''), 'intent_id', t.payment_intent_id)::text
      FROM known_transactions t
     UNION ALL
    SELECT coalesce(t.concluded_at, t.created_at), 'transaction', t.operation || ' ' || t.status, t.correlation_id, t.actor, t.id::text,
           json_build_object('amount', CASE WHEN t.status = 'succeeded' THEN coalesce(t.processed_amount, t.amount) ELSE t.amount END,
                             'currency', t.currency, 'provider', t.provider,
                             'provider_txn_id', t.provider_txn_id, 'decline_code', t.decline_code, 'intent_id', t.payment_intent_id)::text
      FROM known_transactions t
     WHERE t.status <> 'pending'
     UNION ALL
    SELECT c.called_at, 'provider_call', c.provider || ' ' || c.operation || ': ' || coalesce(c.status::text, c.classification),
           c.correlation_id, '', c.id::text,
           json_build_object('path', c.url_path, 'status', c.status, 'classification', c.classification, 'latency_ms', c.latency_ms,
                             'attempt', c.attempt, 'request', c.request, 'response', c.response, 'transaction_id', c.transaction_id)::text
      FROM known_transactions t
      JOIN provider_call_audit c ON c.transaction_id = t.id
     ORDER BY at
     LIMIT $4
"""
