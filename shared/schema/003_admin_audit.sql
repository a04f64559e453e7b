-- What operators and jobs did, and what it changed; never a secret.
CREATE TABLE admin_audit (
    id             uuid        PRIMARY KEY,
    store_id       uuid        NOT NULL,
    environment    text        NOT NULL,
    actor          text        NOT NULL,
    action         text        NOT NULL,
    subject        text        NOT NULL,
    before         jsonb,
    after          jsonb,
    reason         text        NOT NULL DEFAULT '',
    correlation_id text        NOT NULL,
    happened_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX audit_listed ON admin_audit (store_id, environment, id);
