-- Tax documents that a provider keeps books of: recorded there once ours stand, until it has said so.
CREATE TABLE tax_filings (
    document_id      uuid        PRIMARY KEY REFERENCES tax_documents (id),
    store_id         uuid        NOT NULL,
    environment      text        NOT NULL,
    provider         text        NOT NULL,
    status           text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'filed', 'refused')),
    -- From where to where; a reversal has its sale's.
    parties          jsonb,
    looks            integer     NOT NULL DEFAULT 0,
    last_error       text,
    lease_token      integer     NOT NULL DEFAULT 0,
    lease_expires_at timestamptz NOT NULL DEFAULT now(),
    next_look_at     timestamptz NOT NULL DEFAULT now(),
    filed_at         timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now()
);

-- Whoever is free takes what is due.
CREATE INDEX filings_due ON tax_filings (next_look_at) WHERE status = 'pending';

-- The reconciler asks whose books there are, without reading them all.
CREATE INDEX filings_by_owner ON tax_filings (store_id, environment, provider);
