-- What a service proves itself with towards providers, sealed; who reads the table learns nothing.
CREATE TABLE provider_credentials (
    id           uuid        PRIMARY KEY,
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    provider     text        NOT NULL,
    -- For what: payments, shipping, tax, webhooks.
    use          text        NOT NULL,
    -- Counts up with each one that replaces another.
    version      integer     NOT NULL,
    -- Sealed to this row's store, environment, provider and use: moved to another row it does not open.
    sealed       bytea       NOT NULL,
    key_version  integer     NOT NULL,
    -- Tells one secret from another without telling it.
    fingerprint  text        NOT NULL,
    actor        text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    retired_at   timestamptz,
    UNIQUE (store_id, environment, provider, use, version)
);

-- Of each at most two are active: the new one and the one that it replaces.
CREATE INDEX credentials_active ON provider_credentials (store_id, environment, provider, use) WHERE retired_at IS NULL;
-- Rotation of the key looks for what is sealed with older ones.
CREATE INDEX credentials_by_key ON provider_credentials (key_version);

-- Moves with every change, so that a process knows when to read again.
CREATE TABLE credentials_revision (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision bigint  NOT NULL
);

INSERT INTO credentials_revision (revision) VALUES (1);
