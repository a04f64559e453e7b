"""What fulfillment knows of an order, in SQL."""

SQL = """
    WITH known_labels AS (
        SELECT id, carrier, service
          FROM shipment_labels
         WHERE order_id = $3 AND store_id IS NOT DISTINCT FROM $1 AND environment IS NOT DISTINCT FROM $2
    ), known_documents AS (
        SELECT *
          FROM tax_documents
         WHERE order_id = $3 AND store_id IS NOT DISTINCT FROM $1 AND environment IS NOT DISTINCT FROM $2
    )
    SELECT e.happened_at AS at, 'shipment' AS kind, replace(e.event, '_', ' ') AS title, e.correlation_id, e.actor,
           coalesce(e.label_id, e.shipment_id)::text AS subject_id,
           json_build_object('shipment_id', e.shipment_id, 'label_id', e.label_id, 'detail', nullif(e.detail, ''))::text AS facts
      FROM shipment_events e
     WHERE e.order_id = $3 AND e.store_id = $1 AND e.environment = $2
     UNION ALL
    SELECT t.occurred_at, 'tracking', coalesce(t.event ->> 'status', 'seen'), '', '', p.tracking_number,
           json_build_object('carrier', p.carrier, 'source', t.source, 'received_at', t.received_at, 'event', t.event)::text
      FROM shipment_packages p
      JOIN tracking_events t ON t.label_id = p.label_id AND t.position = p.position
     WHERE p.order_id = $3 AND p.store_id IS NOT DISTINCT FROM $1 AND p.environment IS NOT DISTINCT FROM $2
     UNION ALL
    SELECT d.created_at, 'tax',
           CASE d.kind WHEN 'sale' THEN 'tax finalized' WHEN 'reversal' THEN 'tax reversed' ELSE 'tax reinstated' END,
           d.correlation_id, '', d.id::text,
           json_build_object('tax', d.tax_amount, 'currency', d.currency, 'provider', d.provider, 'document_date', d.document_date)::text
      FROM known_documents d
     UNION ALL
    SELECT coalesce(f.filed_at, f.created_at), 'tax', 'recorded with ' || f.provider || ': ' || f.status, d.correlation_id, '', d.id::text,
           json_build_object('last_error', f.last_error)::text
      FROM known_documents d
      JOIN tax_filings f ON f.document_id = d.id
     UNION ALL
    SELECT c.called_at, 'provider_call', c.provider || ' ' || c.operation || ': ' || coalesce(c.status::text, c.classification),
           c.correlation_id, '', c.id::text,
           json_build_object('path', c.url_path, 'status', c.status, 'classification', c.classification, 'latency_ms', c.latency_ms,
                             'attempt', c.attempt, 'request', c.request, 'response', c.response)::text
      FROM (SELECT id FROM known_labels UNION SELECT id FROM known_documents) known
      JOIN provider_call_audit c ON c.transaction_id = known.id
     ORDER BY at
     LIMIT $4
"""
