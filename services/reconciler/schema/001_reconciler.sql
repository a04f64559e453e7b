-- What was compared when, and what did not agree.

CREATE TABLE reconciliation_runs (
    id               uuid        PRIMARY KEY,
    store_id         uuid        NOT NULL,
    environment      text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    domain           text        NOT NULL CHECK (domain IN ('payments', 'shipping', 'tax')),
    provider         text        NOT NULL,
    since            timestamptz NOT NULL,
    until            timestamptz NOT NULL,
    status           text        NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'completed')),
    -- Who wanted it, and the time of a schedule it stands for.
    actor            text        NOT NULL,
    correlation_id   text        NOT NULL,
    schedule         text,
    -- What ours are compared with: the provider's books as it lists them, or a report of what it paid out.
    source           text        NOT NULL DEFAULT 'books' CHECK (source IN ('books', 'settlement')),
    due_at           timestamptz,
    -- Where it is: the window's beginning, whose books are being read, and the cursor in them.
    position         timestamptz NOT NULL,
    phase            text        NOT NULL DEFAULT 'theirs' CHECK (phase IN ('theirs', 'ours')),
    cursor           text,
    compared         bigint      NOT NULL DEFAULT 0,
    elsewhere        bigint      NOT NULL DEFAULT 0,
    pages            bigint      NOT NULL DEFAULT 0,
    drift_found      bigint      NOT NULL DEFAULT 0,
    drift_healed     bigint      NOT NULL DEFAULT 0,
    -- Tries since the last page that was written down, and why the last one failed.
    attempts         integer     NOT NULL DEFAULT 0,
    last_error       text,
    next_try_at      timestamptz NOT NULL DEFAULT now(),
    lease_token      integer     NOT NULL DEFAULT 0,
    lease_expires_at timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    CHECK (since < until),
    CHECK ((status = 'completed') = (finished_at IS NOT NULL))
);

-- A schedule's time is one run a book, however many leaders there were.
CREATE UNIQUE INDEX one_run_a_time ON reconciliation_runs (schedule, due_at, store_id, environment, provider) WHERE schedule IS NOT NULL;
CREATE INDEX runs_listed ON reconciliation_runs (store_id, environment, id);
-- Whoever is free takes what is due.
CREATE INDEX runs_due ON reconciliation_runs (next_try_at) WHERE status <> 'completed';

-- What the provider's side of the present window held, so that the other side knows what to ask for singly.
CREATE TABLE reconciliation_seen (
    run_id uuid NOT NULL REFERENCES reconciliation_runs (id),
    key    text NOT NULL,
    PRIMARY KEY (run_id, key)
);

CREATE TABLE drift_items (
    id            uuid        PRIMARY KEY,
    store_id      uuid        NOT NULL,
    environment   text        NOT NULL,
    domain        text        NOT NULL,
    provider      text        NOT NULL,
    type          text        NOT NULL CHECK (type IN ('missing_locally', 'missing_at_provider', 'amount', 'currency', 'status', 'duplicate')),
    -- What the provider calls the thing, and which operation of it is meant; empty for the whole.
    key           text        NOT NULL,
    entry         text        NOT NULL,
    ours          jsonb,
    theirs        jsonb,
    -- Of both sides: other evidence is another item, also where an operator has settled one.
    evidence_hash bytea       NOT NULL,
    order_id      uuid,
    status        text        NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'healed', 'resolved')),
    first_run_id  uuid        NOT NULL REFERENCES reconciliation_runs (id),
    last_run_id   uuid        NOT NULL REFERENCES reconciliation_runs (id),
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at  timestamptz NOT NULL DEFAULT now(),
    settled_at    timestamptz,
    -- How it was settled: observed, agrees, accepted, provider_is_right; and by whom and why, where somebody decided.
    resolution    text,
    reason        text        NOT NULL DEFAULT '',
    actor         text        NOT NULL DEFAULT '',
    CHECK ((status = 'open') = (settled_at IS NULL))
);

-- A difference is one item as long as it lasts, in however many runs it is met; one that an operator has settled stays settled.
CREATE UNIQUE INDEX one_item_a_difference ON drift_items (store_id, environment, domain, provider, key, entry, type, evidence_hash)
 WHERE status <> 'healed';
CREATE INDEX drift_listed ON drift_items (store_id, environment, id);
CREATE INDEX drift_open ON drift_items (store_id, environment, domain, provider, key) WHERE status = 'open';

-- Who may fire schedules; whoever is not heard of any more loses it, and a number tells the old one from the new.
CREATE TABLE leaders (
    role       text        PRIMARY KEY,
    holder     uuid        NOT NULL,
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE schedules_fired (
    schedule text        PRIMARY KEY,
    fired_at timestamptz NOT NULL,
    token    bigint      NOT NULL
);
