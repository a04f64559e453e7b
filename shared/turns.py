"""Due rows of many stores in turns: one store with thousands of them delays no other's."""


def due_in_turns(table: str, due: str, *, limit: str, key: str = "id") -> str:
    """Write the query for the keys of due rows, locked: every store's oldest first, then every store's second, up to a limit.

    The table has store_id, environment and next_look_at. Rows that another process has locked are left to it.
    """
    return f"""
        SELECT {key}
          FROM {table}
         WHERE {due}
           AND {key} = ANY(ARRAY(SELECT {key}
                                   FROM (SELECT {key}, next_look_at,
                                                row_number() OVER (PARTITION BY store_id, environment ORDER BY next_look_at) AS turn
                                           FROM {table}
                                          WHERE {due}) AS waiting
                                  ORDER BY turn, next_look_at
                                  LIMIT {limit}))
           FOR UPDATE SKIP LOCKED
    """
