-- Who is signed in at the console. The cookie holds the token, of 256 random bits; here is its hash. A revoked key ends its sessions.
CREATE TABLE console_sessions (
    token_hash  bytea       PRIMARY KEY,
    key_id      uuid        NOT NULL REFERENCES api_keys (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);

CREATE INDEX sessions_expired ON console_sessions (expires_at);

-- Keys are listed by store.
CREATE INDEX api_keys_listed ON api_keys (store_id, environment, id);

-- How the services were, every so often: what the console draws as lines. Not worth a log.
CREATE UNLOGGED TABLE samples (
    taken_at            timestamptz      NOT NULL,
    service             text             NOT NULL,
    -- Nothing while it did not answer.
    handled_per_second  double precision,
    p95_seconds         double precision,
    depth               integer,
    PRIMARY KEY (service, taken_at)
);
