-- What providers told us: one narrow row an event, its bulk apart, every try at it, and a sample of what was refused.

CREATE TABLE webhook_events (
    id                uuid        PRIMARY KEY,
    store_id          uuid        NOT NULL,
    environment       text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    provider          text        NOT NULL,
    account           text        NOT NULL,
    provider_event_id text        NOT NULL,
    event_type        text        NOT NULL,
    -- Always true: what is forged lies in webhook_rejections, where it can take no event's place.
    signature_valid   boolean     NOT NULL DEFAULT true CHECK (signature_valid),
    status            text        NOT NULL DEFAULT 'received'
                                  CHECK (status IN ('received', 'failing', 'waiting', 'processed', 'ignored', 'dead', 'unmatched')),
    attempt_count     integer     NOT NULL DEFAULT 0,
    last_error        text,
    order_id          uuid,
    happened_at       timestamptz,
    received_at       timestamptz NOT NULL DEFAULT now(),
    processed_at      timestamptz,
    next_attempt_at   timestamptz,
    -- A replay is a no-op; never partitioned, so that it is one for ever.
    UNIQUE (store_id, environment, provider, provider_event_id)
);

-- The list, newest first, with each of its filters.
CREATE INDEX events_newest ON webhook_events (store_id, environment, id);
CREATE INDEX events_of_order ON webhook_events (store_id, environment, order_id, id) WHERE order_id IS NOT NULL;
CREATE INDEX events_by_status ON webhook_events (store_id, environment, status, id) WHERE status NOT IN ('processed', 'ignored');
CREATE INDEX events_received ON webhook_events (store_id, environment, received_at);
-- Jobs: what waits to be matched, and the oldest that is not processed.
CREATE INDEX events_waiting ON webhook_events (next_attempt_at) WHERE status = 'waiting';
CREATE INDEX events_pending ON webhook_events (received_at) WHERE status IN ('received', 'failing');

-- The exact bytes, by month; no foreign key, so that a month can be dropped.
CREATE TABLE webhook_payloads (
    event_id    uuid        NOT NULL,
    received_at timestamptz NOT NULL,
    headers     jsonb       NOT NULL,
    body        bytea       NOT NULL,
    PRIMARY KEY (event_id, received_at)
) PARTITION BY RANGE (received_at);

CREATE TABLE webhook_attempts (
    id          uuid        PRIMARY KEY,
    event_id    uuid        NOT NULL REFERENCES webhook_events (id),
    command_id  uuid        NOT NULL,
    replays     uuid,
    actor       text        NOT NULL,
    outcome     text        NOT NULL,
    error       text,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX attempts_of_event ON webhook_attempts (event_id, id);

-- A bounded, short-lived sample for whoever looks why a provider's webhooks are refused.
CREATE TABLE webhook_rejections (
    id          uuid        PRIMARY KEY,
    provider    text        NOT NULL,
    reason      text        NOT NULL,
    headers     jsonb       NOT NULL,
    body_start  bytea       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX rejections_by_age ON webhook_rejections (received_at);

-- Run by the service, which does not own the table: makes the months ahead and drops those past retention.
CREATE FUNCTION keep_payload_partitions(months_ahead integer, months_kept integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    month date;
    old   record;
BEGIN
    PERFORM pg_advisory_xact_lock(7230511003);
    FOR month IN SELECT generate_series(date_trunc('month', now()), date_trunc('month', now()) + make_interval(months => months_ahead),
                                        interval '1 month')::date LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS webhook_payloads_%s PARTITION OF webhook_payloads FOR VALUES FROM (%L) TO (%L)',
                       to_char(month, 'YYYYMM'), month, month + interval '1 month');
    END LOOP;
    FOR old IN SELECT c.relname
                 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'webhook_payloads'::regclass
                  AND c.relname < 'webhook_payloads_' || to_char(now() - make_interval(months => months_kept), 'YYYYMM') LOOP
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
END $$;

SELECT keep_payload_partitions(3, 6);
