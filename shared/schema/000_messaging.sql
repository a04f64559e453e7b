-- What every service's schema holds besides its own tables: messages received, messages to send.

-- A command's fate, so that the same id has the same result for ever (45 days; money is guarded by the ledger beyond that).
CREATE TABLE inbox (
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    source       text        NOT NULL,
    message_id   uuid        NOT NULL,
    type         text        NOT NULL,
    digest       bytea       NOT NULL,
    state        text        NOT NULL CHECK (state IN ('open', 'done', 'parked', 'discarded')),
    attempts     integer     NOT NULL DEFAULT 0,
    reply        bytea,
    reply_to     text        NOT NULL DEFAULT '',
    last_error   text,
    received_at  timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    PRIMARY KEY (store_id, environment, source, message_id),
    -- Nobody may say "done" without keeping what was answered.
    CHECK ((state = 'done') = (reply IS NOT NULL))
);

-- Finished rows are deleted in batches by age.
CREATE INDEX inbox_finished ON inbox (finished_at) WHERE finished_at IS NOT NULL;

-- Events that a committed change promised; deleted once the broker has confirmed them.
CREATE TABLE outbox (
    id           uuid        PRIMARY KEY,
    routing_key  text        NOT NULL,
    headers      jsonb       NOT NULL,
    body         bytea       NOT NULL,
    traceparent  text        NOT NULL DEFAULT '',
    available_at timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- The sweeper looks for what a crash left behind.
CREATE INDEX outbox_available ON outbox (available_at);
