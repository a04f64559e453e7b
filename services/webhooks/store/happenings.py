"""What webhooks knows of an order, in SQL."""

SQL = """
    WITH known_events AS (
        SELECT *
          FROM webhook_events
         WHERE order_id = $3 AND store_id IS NOT DISTINCT FROM $1 AND environment IS NOT DISTINCT FROM $2
    ), told AS (
        SELECT *
          FROM merchant_events
         WHERE order_id = $3 AND store_id IS NOT DISTINCT FROM $1 AND environment IS NOT DISTINCT FROM $2
    )
    SELECT e.received_at AS at, 'webhook' AS kind, e.provider || ' told ' || e.event_type AS title, '' AS correlation_id, '' AS actor,
           e.id::text AS subject_id,
           json_build_object('provider_event_id', e.provider_event_id, 'status', e.status, 'happened_at', e.happened_at,
                             'last_error', e.last_error)::text AS facts
      FROM known_events e
     UNION ALL
    SELECT a.at, 'webhook', e.event_type || ' ' || a.outcome, '', a.actor, e.id::text, json_build_object('error', a.error)::text
      FROM known_events e
      JOIN webhook_attempts a ON a.event_id = e.id
     UNION ALL
    SELECT t.created_at, 'notice', 'the shop is told ' || t.type, t.correlation_id, '', t.id::text,
           json_build_object('sequence', t.sequence)::text
      FROM told t
     UNION ALL
    SELECT coalesce(d.delivered_at, d.created_at), 'notice', t.type || ' ' || d.status, t.correlation_id, '', d.id::text,
           json_build_object('endpoint_id', d.endpoint_id, 'attempts', d.attempt_count, 'last_status', d.last_status,
                             'last_error', d.last_error)::text
      FROM told t
      JOIN webhook_deliveries d ON d.event_id = t.id
     ORDER BY at
     LIMIT $4
"""
