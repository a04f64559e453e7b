-- Messages that could not be handled, taken from every service's dead-letter queue.
CREATE TABLE dead_letters (
    id             uuid        PRIMARY KEY,
    -- Names the message, so that it is one row however often it dies.
    identity       bytea       NOT NULL UNIQUE,
    service        text        NOT NULL,
    queue          text        NOT NULL,
    -- Nil and empty where the message does not say whose it is.
    store_id       uuid        NOT NULL,
    environment    text        NOT NULL,
    source         text        NOT NULL,
    message_id     uuid,
    digest         bytea       NOT NULL,
    message_type   text        NOT NULL,
    actor          text        NOT NULL,
    correlation_id text        NOT NULL,
    order_id       uuid,
    headers        jsonb       NOT NULL,
    -- The exact bytes: the same id with others is refused.
    body           bytea       NOT NULL,
    reason         text        NOT NULL,
    attempts       integer     NOT NULL,
    fingerprint    text        NOT NULL,
    deaths         integer     NOT NULL DEFAULT 1,
    retries        integer     NOT NULL DEFAULT 0,
    status         text        NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'retried', 'replaced', 'discarded')),
    first_seen_at  timestamptz NOT NULL,
    died_at        timestamptz NOT NULL,
    settled_at     timestamptz,
    settled_by     text        NOT NULL DEFAULT '',
    settled_reason text        NOT NULL DEFAULT '',
    -- Of an edited message: which letter it stands for, and where it differs.
    replaces       uuid,
    replaced_by    uuid,
    difference     jsonb       NOT NULL DEFAULT '[]',
    words          tsvector    GENERATED ALWAYS AS (to_tsvector('simple', reason || ' ' || message_type || ' ' || actor)) STORED,
    CHECK ((status = 'waiting') = (settled_at IS NULL))
);

-- Listed and grouped by store; the group's counts come from the index alone.
CREATE INDEX letters_listed ON dead_letters (store_id, environment, id);
CREATE INDEX letters_grouped ON dead_letters (store_id, environment, status, fingerprint, died_at);
CREATE INDEX letters_of_order ON dead_letters (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX letters_correlated ON dead_letters (correlation_id);
CREATE INDEX letters_of_message ON dead_letters (message_id);
-- A replacement that dies too is shown beside what it stands for.
CREATE INDEX letters_replaced ON dead_letters (replaced_by) WHERE replaced_by IS NOT NULL;
CREATE INDEX letters_searched ON dead_letters USING gin (words);
-- What was settled long ago is deleted in batches.
CREATE INDEX letters_settled ON dead_letters (settled_at) WHERE settled_at IS NOT NULL;

-- Every time that a message was parked.
CREATE TABLE dead_letter_deaths (
    letter_id uuid        NOT NULL REFERENCES dead_letters (id) ON DELETE CASCADE,
    died_at   timestamptz NOT NULL,
    reason    text        NOT NULL,
    traceback text        NOT NULL,
    attempts  integer     NOT NULL,
    PRIMARY KEY (letter_id, died_at)
);

-- What a group of letters has in common, as the first one said it.
CREATE TABLE dead_letter_groups (
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL,
    fingerprint  text        NOT NULL,
    service      text        NOT NULL,
    message_type text        NOT NULL,
    reason       text        NOT NULL,
    PRIMARY KEY (store_id, environment, fingerprint)
);

-- Many letters being retried or discarded, one after the other.
CREATE TABLE redrives (
    id               uuid        PRIMARY KEY,
    store_id         uuid        NOT NULL,
    environment      text        NOT NULL,
    action           text        NOT NULL CHECK (action IN ('retry', 'discard')),
    ids              uuid[],
    chosen           jsonb       NOT NULL,
    rate_per_second  double precision NOT NULL CHECK (rate_per_second > 0),
    status           text        NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'stopped', 'completed')),
    letters          bigint      NOT NULL,
    done             bigint      NOT NULL DEFAULT 0,
    skipped          bigint      NOT NULL DEFAULT 0,
    -- The last letter that was looked at; they go by their ids.
    position         uuid        NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    -- Only what lay there when it began.
    until            timestamptz NOT NULL DEFAULT now(),
    last_error       text,
    actor            text        NOT NULL,
    reason           text        NOT NULL,
    correlation_id   text        NOT NULL,
    lease_token      integer     NOT NULL DEFAULT 0,
    lease_expires_at timestamptz NOT NULL DEFAULT now(),
    next_try_at      timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CHECK ((status = 'running') = (finished_at IS NULL))
);

CREATE INDEX redrives_listed ON redrives (store_id, environment, id);
CREATE INDEX redrives_due ON redrives (next_try_at) WHERE status = 'running';

-- An order's timeline tells what of it did not agree.
CREATE INDEX drift_of_order ON drift_items (order_id) WHERE order_id IS NOT NULL;
