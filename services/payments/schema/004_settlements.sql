-- What providers paid out for which row of the ledger, in the currency of the bank account, and what they kept of it.
CREATE TABLE payment_settlements (
    id                  uuid           PRIMARY KEY,
    store_id            uuid           NOT NULL,
    environment         text           NOT NULL,
    provider_account    text           NOT NULL,
    -- What the provider calls the line: the same line is one row, in however many files it comes.
    line_key            text           NOT NULL,
    category            text           NOT NULL,
    payment_intent_id   uuid           NOT NULL REFERENCES payment_intents (id),
    transaction_id      uuid           REFERENCES payment_transactions (id),
    -- Signed, as it moved the provider's balance.
    gross               bigint         NOT NULL,
    fee                 bigint         NOT NULL,
    net                 bigint         NOT NULL,
    currency            text           NOT NULL,
    payout              text           NOT NULL DEFAULT '',
    settled_at          timestamptz,
    file_sha256         text           NOT NULL,
    created_at          timestamptz    NOT NULL DEFAULT now(),
    UNIQUE (store_id, environment, provider_account, line_key),
    CHECK (net = gross - fee)
);

-- A payment's ledger shows what was settled of it.
CREATE INDEX settlements_of_intent ON payment_settlements (payment_intent_id);
