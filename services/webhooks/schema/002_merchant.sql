-- What is told to the merchant: to which addresses, which events, and how each delivery stands.

CREATE TABLE webhook_endpoints (
    id            uuid        PRIMARY KEY,
    store_id      uuid        NOT NULL,
    environment   text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    url           text        NOT NULL,
    -- Empty means all.
    event_types   text[]      NOT NULL,
    -- The newest first; deliveries are signed with each.
    secrets       text[]      NOT NULL CHECK (cardinality(secrets) BETWEEN 1 AND 2),
    enabled       boolean     NOT NULL,
    disabled_why  text,
    failing_since timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX endpoints_of_store ON webhook_endpoints (store_id, environment, id);

-- The last number given to an event of an order, so that a receiver sees when one is missing.
CREATE TABLE order_sequences (
    store_id    uuid    NOT NULL,
    environment text    NOT NULL,
    order_id    uuid    NOT NULL,
    last        integer NOT NULL,
    PRIMARY KEY (store_id, environment, order_id)
);

CREATE TABLE merchant_events (
    id          uuid        PRIMARY KEY,
    store_id    uuid        NOT NULL,
    environment text        NOT NULL,
    type        text        NOT NULL,
    order_id    uuid        NOT NULL,
    sequence    integer     NOT NULL,
    -- What the event is about, and its version: an older one than is known is not told any more.
    subject_id  uuid        NOT NULL,
    version     integer     NOT NULL,
    -- The exact bytes that every delivery sends.
    body        bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Who catches up reads in the order of commits: what a transaction still under way writes must not be skipped.
    written_by  xid8        NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (store_id, environment, order_id, sequence)
);
CREATE INDEX merchant_events_in_order ON merchant_events (store_id, environment, written_by, id);
CREATE INDEX merchant_events_of_subject ON merchant_events (subject_id, version);

CREATE TABLE webhook_deliveries (
    id              uuid        PRIMARY KEY,
    endpoint_id     uuid        NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    event_id        uuid        NOT NULL REFERENCES merchant_events (id) ON DELETE CASCADE,
    store_id        uuid        NOT NULL,
    environment     text        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempt_count   integer     NOT NULL DEFAULT 0,
    last_status     integer,
    last_error      text,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- An event is told to an address once, however often we hear of it.
    UNIQUE (endpoint_id, event_id)
);
CREATE INDEX deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'pending';
CREATE INDEX deliveries_of_store ON webhook_deliveries (store_id, environment, id);
CREATE INDEX deliveries_of_event ON webhook_deliveries (event_id);
