-- Who may call, and what was answered to which key.

CREATE TABLE api_keys (
    id           uuid        PRIMARY KEY,
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    role         text        NOT NULL CHECK (role IN ('checkout', 'admin', 'operator')),
    name         text        NOT NULL,
    -- Of a random secret of 256 bits, so a plain hash is enough; the secret itself is shown once.
    secret_hash  bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz
);

CREATE TABLE idempotency_keys (
    scope            text        NOT NULL,
    idempotency_key  text        NOT NULL,
    request_hash     bytea       NOT NULL,
    status           text        NOT NULL CHECK (status IN ('in_progress', 'completed')),
    response_code    integer,
    response_body    bytea,
    operation_id     uuid        NOT NULL,
    parent_id        uuid,
    command_type     text        NOT NULL,
    -- The command itself, so that a crash anywhere loses nothing; gone once it is completed.
    command          bytea,
    store_id         uuid        NOT NULL,
    environment      text        NOT NULL,
    actor            text        NOT NULL,
    correlation_id   text        NOT NULL,
    traceparent      text        NOT NULL,
    -- True while the caller was told to come back: the sweeper leaves it alone until they do.
    resting          boolean     NOT NULL DEFAULT false,
    drives           integer     NOT NULL DEFAULT 1,
    driven_at        timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    completed_at     timestamptz,
    expires_at       timestamptz,
    -- One key, one operation, within a store, environment and principal.
    PRIMARY KEY (scope, idempotency_key),
    CHECK ((status = 'completed') = (response_code IS NOT NULL AND response_body IS NOT NULL AND expires_at IS NOT NULL))
);

-- Operations are read by id.
CREATE UNIQUE INDEX idempotency_operations ON idempotency_keys (operation_id);
-- The steps of a composed operation are shown with it.
CREATE INDEX idempotency_steps ON idempotency_keys (parent_id) WHERE parent_id IS NOT NULL;
-- The sweeper drives on what nobody drives.
CREATE INDEX idempotency_unfinished ON idempotency_keys (driven_at) WHERE status = 'in_progress' AND NOT resting;
-- Completed keys are forgotten after their time.
CREATE INDEX idempotency_expired ON idempotency_keys (expires_at) WHERE expires_at IS NOT NULL;
