"""What the reconciler knows of an order, in SQL."""

SQL = """
    SELECT d.died_at AS at, 'dead_letter' AS kind, l.message_type || ' could not be handled' AS title, l.correlation_id, l.actor,
           l.id::text AS subject_id,
           json_build_object('service', l.service, 'reason', d.reason, 'attempts', d.attempts)::text AS facts
      FROM dead_letters l
      JOIN dead_letter_deaths d ON d.letter_id = l.id
     WHERE l.order_id = $3 AND l.store_id IS NOT DISTINCT FROM $1 AND l.environment IS NOT DISTINCT FROM $2
     UNION ALL
    SELECT l.settled_at, 'dead_letter', l.message_type || ' ' || l.status, l.correlation_id, l.settled_by, l.id::text,
           json_build_object('reason', nullif(l.settled_reason, ''), 'replaced_by', l.replaced_by)::text
      FROM dead_letters l
     WHERE l.order_id = $3 AND l.store_id IS NOT DISTINCT FROM $1 AND l.environment IS NOT DISTINCT FROM $2 AND l.settled_at IS NOT NULL
     UNION ALL
    SELECT i.first_seen_at, 'drift', 'books differ: ' || replace(i.type, '_', ' '), '', '', i.id::text,
           json_build_object('domain', i.domain, 'provider', i.provider, 'key', i.key, 'entry', nullif(i.entry, ''), 'ours', i.ours,
                             'theirs', i.theirs)::text
      FROM drift_items i
     WHERE i.order_id = $3 AND i.store_id IS NOT DISTINCT FROM $1 AND i.environment IS NOT DISTINCT FROM $2
     UNION ALL
    SELECT i.settled_at, 'drift', 'difference ' || i.status, '', i.actor, i.id::text,
           json_build_object('resolution', i.resolution, 'reason', nullif(i.reason, ''))::text
      FROM drift_items i
     WHERE i.order_id = $3 AND i.store_id IS NOT DISTINCT FROM $1 AND i.environment IS NOT DISTINCT FROM $2 AND i.settled_at IS NOT NULL
     ORDER BY at
     LIMIT $4
"""
