-- Orders, price snapshots, payment intents and the ledger.

CREATE TABLE stores (
    store_id                uuid    NOT NULL,
    environment             text    NOT NULL CHECK (environment IN ('sandbox', 'production')),
    quote_lifetime_seconds  integer NOT NULL CHECK (quote_lifetime_seconds > 0),
    reporting_currency      text    NOT NULL,
    PRIMARY KEY (store_id, environment)
);

-- What one unit of `base` was worth, by whom and when; a snapshot says at which rate it would be reported.
CREATE TABLE fx_reference_rates (
    base        text           NOT NULL,
    quote       text           NOT NULL,
    rate        numeric(20,10) NOT NULL CHECK (rate > 0),
    source      text           NOT NULL,
    rate_date   date           NOT NULL,
    PRIMARY KEY (base, quote, rate_date, source)
);

CREATE TABLE orders (
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    id           uuid        NOT NULL,
    version      integer     NOT NULL,
    status       text        NOT NULL CHECK (status IN ('open', 'payment_pending', 'authorized', 'partially_paid', 'paid',
                                                        'partially_refunded', 'refunded', 'cancelled')),
    currency     text        NOT NULL,
    total        bigint      NOT NULL CHECK (total >= 0),
    customer_id  uuid,
    content      jsonb       NOT NULL,
    totals       jsonb       NOT NULL,
    priced_hash  bytea       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    -- Two shops may choose the same id.
    PRIMARY KEY (store_id, environment, id)
);

-- A customer lists their own orders, the newest first.
CREATE INDEX orders_of_customer ON orders (store_id, environment, customer_id, created_at DESC, id DESC) WHERE customer_id IS NOT NULL;

CREATE TABLE order_items (
    store_id           uuid    NOT NULL,
    environment        text    NOT NULL,
    order_id           uuid    NOT NULL,
    line               integer NOT NULL,
    product_variant_id uuid    NOT NULL,
    name               text    NOT NULL,
    quantity           integer NOT NULL CHECK (quantity > 0),
    unit_price         bigint  NOT NULL CHECK (unit_price >= 0),
    discount           bigint  NOT NULL CHECK (discount >= 0),
    tax_code           text    NOT NULL,
    tax_behavior       text    NOT NULL,
    PRIMARY KEY (store_id, environment, order_id, line),
    FOREIGN KEY (store_id, environment, order_id) REFERENCES orders (store_id, environment, id)
);

CREATE TABLE order_checkout_snapshots (
    id             uuid        PRIMARY KEY,
    store_id       uuid        NOT NULL,
    environment    text        NOT NULL,
    order_id       uuid        NOT NULL,
    order_version  integer     NOT NULL,
    priced_hash    bytea       NOT NULL,
    currency       text        NOT NULL,
    total          bigint      NOT NULL CHECK (total >= 0),
    provider       text        NOT NULL,
    content        jsonb       NOT NULL,
    priced         jsonb       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    FOREIGN KEY (store_id, environment, order_id) REFERENCES orders (store_id, environment, id)
);

CREATE INDEX snapshots_of_order ON order_checkout_snapshots (store_id, environment, order_id);

CREATE TABLE order_checkout_snapshot_items (
    snapshot_id        uuid    NOT NULL REFERENCES order_checkout_snapshots (id),
    line               integer NOT NULL,
    product_variant_id uuid    NOT NULL,
    name               text    NOT NULL,
    quantity           integer NOT NULL,
    unit_price         bigint  NOT NULL,
    discount           bigint  NOT NULL,
    amount             bigint  NOT NULL,
    PRIMARY KEY (snapshot_id, line)
);

CREATE TABLE order_status_history (
    id             uuid        PRIMARY KEY,
    store_id       uuid        NOT NULL,
    environment    text        NOT NULL,
    order_id       uuid        NOT NULL,
    from_status    text,
    to_status      text        NOT NULL,
    reason         text        NOT NULL,
    source         text        NOT NULL,
    actor          text        NOT NULL,
    correlation_id text        NOT NULL,
    changed_at     timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (store_id, environment, order_id) REFERENCES orders (store_id, environment, id)
);

CREATE INDEX history_of_order ON order_status_history (store_id, environment, order_id, id);

CREATE TABLE payment_intents (
    id                       uuid        PRIMARY KEY,
    store_id                 uuid        NOT NULL,
    environment              text        NOT NULL,
    order_id                 uuid        NOT NULL,
    snapshot_id              uuid        NOT NULL REFERENCES order_checkout_snapshots (id),
    provider                 text        NOT NULL,
    provider_account         text        NOT NULL,
    provider_payment_id      text,
    status                   text        NOT NULL CHECK (status IN ('processing', 'requires_action', 'authorized', 'partially_captured',
                                                                    'captured', 'partially_refunded', 'refunded', 'voided', 'declined',
                                                                    'expired', 'abandoned', 'conflicted')),
    currency                 text        NOT NULL,
    requested_amount         bigint      NOT NULL CHECK (requested_amount > 0),
    authorized_amount        bigint      NOT NULL DEFAULT 0,
    captured_amount          bigint      NOT NULL DEFAULT 0,
    refunded_amount          bigint      NOT NULL DEFAULT 0,
    voided_amount            bigint      NOT NULL DEFAULT 0,
    charged_back_amount      bigint      NOT NULL DEFAULT 0,
    capture_reserved         bigint      NOT NULL DEFAULT 0 CHECK (capture_reserved >= 0),
    refund_reserved          bigint      NOT NULL DEFAULT 0 CHECK (refund_reserved >= 0),
    attention                text,
    next_action              jsonb,
    authorization_expires_at timestamptz,
    abandoned                boolean     NOT NULL DEFAULT false,
    -- True until the intent first becomes inactive and never again: a late fact about an old intent
    -- (a conflict, an excess) must enter even though the order has a new intent by then.
    holds_order              boolean     NOT NULL DEFAULT true,
    version                  integer     NOT NULL DEFAULT 1,
    created_at               timestamptz NOT NULL DEFAULT now(),
    updated_at               timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (store_id, environment, order_id) REFERENCES orders (store_id, environment, id),
    -- What we reserve can never exceed what is there; what a provider says has happened is a fact and marks a conflict instead.
    CONSTRAINT captures_fit CHECK (capture_reserved = 0 OR attention IS NOT NULL
                                   OR captured_amount + capture_reserved + voided_amount <= authorized_amount),
    CONSTRAINT refunds_fit CHECK (refund_reserved = 0 OR attention IS NOT NULL
                                  OR refunded_amount + charged_back_amount + refund_reserved <= captured_amount)
);

-- One active intent per order.
CREATE UNIQUE INDEX one_active_intent ON payment_intents (store_id, environment, order_id) WHERE holds_order;
CREATE INDEX intents_of_order ON payment_intents (store_id, environment, order_id);
-- An observation names the provider's payment.
CREATE INDEX intents_by_provider_payment ON payment_intents (provider_account, provider_payment_id);
-- Jobs look for holds about to lapse and for checkouts left behind.
CREATE INDEX intents_expiring ON payment_intents (authorization_expires_at) WHERE status IN ('authorized', 'partially_captured');
CREATE INDEX intents_waiting ON payment_intents (created_at) WHERE status IN ('processing', 'requires_action');
CREATE INDEX intents_abandoned ON payment_intents (updated_at) WHERE abandoned;

CREATE TABLE payment_transactions (
    id                        uuid        PRIMARY KEY,
    payment_intent_id         uuid        NOT NULL REFERENCES payment_intents (id),
    store_id                  uuid        NOT NULL,
    environment               text        NOT NULL,
    operation                 text        NOT NULL CHECK (operation IN ('authorize', 'capture', 'void', 'refund', 'chargeback')),
    idempotency_key           text        NOT NULL,
    command_id                uuid        NOT NULL,
    -- Whoever is answered by the conclusion: the command itself, or the confirm that went on with it.
    answers                   uuid        NOT NULL,
    command_type              text        NOT NULL,
    command_digest            bytea       NOT NULL,
    provider_idempotency_key  text        NOT NULL,
    provider_account          text        NOT NULL,
    provider_txn_id           text,
    amount                    bigint      NOT NULL CHECK (amount >= 0),
    processed_amount          bigint,
    final                     boolean     NOT NULL DEFAULT false,
    status                    text        NOT NULL CHECK (status IN ('pending', 'unknown', 'failed', 'declined', 'succeeded')),
    contradicted              boolean     NOT NULL DEFAULT false,
    awaiting_customer         boolean     NOT NULL DEFAULT false,
    source                    text        NOT NULL CHECK (source IN ('api', 'webhook', 'job', 'reconciliation')),
    reason                    text        NOT NULL DEFAULT '',
    decline_code              text,
    raw_response_redacted     jsonb       NOT NULL DEFAULT '{}',
    request                   bytea       NOT NULL,
    actor                     text        NOT NULL,
    correlation_id            text        NOT NULL,
    lease_token               integer     NOT NULL DEFAULT 1,
    lease_expires_at          timestamptz NOT NULL DEFAULT now(),
    next_look_at              timestamptz NOT NULL DEFAULT now(),
    looks                     integer     NOT NULL DEFAULT 0,
    created_at                timestamptz NOT NULL DEFAULT now(),
    concluded_at              timestamptz,
    -- The same key can never do the same thing to one intent twice.
    UNIQUE (payment_intent_id, operation, idempotency_key),
    -- Nor can the same command, for ever, long after its key and inbox row are gone.
    UNIQUE (store_id, environment, command_id)
);

-- What the provider names once is in the ledger once.
CREATE UNIQUE INDEX transactions_by_provider ON payment_transactions (provider_account, provider_txn_id, operation)
 WHERE provider_txn_id IS NOT NULL;
-- One open question to the provider per intent, so that a void never runs beside a capture.
CREATE UNIQUE INDEX one_open_transaction ON payment_transactions (payment_intent_id)
 WHERE status IN ('pending', 'unknown') AND NOT awaiting_customer;
CREATE INDEX transactions_of_intent ON payment_transactions (payment_intent_id, id);
-- The resolver takes what is due.
CREATE INDEX transactions_due ON payment_transactions (next_look_at) WHERE status IN ('pending', 'unknown');

-- The ledger only moves on: pending < unknown < failed < declined < succeeded. A success that comes after a decline is a
-- fact about money and wins; the row is marked as contradicted. Amounts and keys never change, rows never go.
CREATE FUNCTION ledger_moves_on() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ranks CONSTANT text[] := ARRAY['pending', 'unknown', 'failed', 'declined', 'succeeded'];
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'ledger rows are never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF array_position(ranks, NEW.status) < array_position(ranks, OLD.status) THEN
        RAISE EXCEPTION 'a transaction cannot go from % back to %', OLD.status, NEW.status USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.id, NEW.payment_intent_id, NEW.operation, NEW.amount, NEW.idempotency_key, NEW.command_id,
        NEW.provider_idempotency_key, NEW.provider_account, NEW.request)
       IS DISTINCT FROM
       (OLD.id, OLD.payment_intent_id, OLD.operation, OLD.amount, OLD.idempotency_key, OLD.command_id,
        OLD.provider_idempotency_key, OLD.provider_account, OLD.request) THEN
        RAISE EXCEPTION 'amounts, keys and requests in the ledger never change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER ledger_moves_on BEFORE UPDATE OR DELETE ON payment_transactions
    FOR EACH ROW EXECUTE FUNCTION ledger_moves_on();

-- Every call to a provider, by month; only allowed fields are in it.
CREATE TABLE provider_call_audit (
    id              uuid        NOT NULL,
    store_id        uuid        NOT NULL,
    environment     text        NOT NULL,
    provider        text        NOT NULL,
    operation       text        NOT NULL,
    url_path        text        NOT NULL,
    request         jsonb       NOT NULL,
    response        jsonb       NOT NULL,
    status          integer,
    latency_ms      integer     NOT NULL,
    attempt         integer     NOT NULL,
    classification  text        NOT NULL CHECK (classification IN ('not_sent', 'sent_no_answer', 'answered')),
    correlation_id  text        NOT NULL,
    transaction_id  uuid,
    called_at       timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (called_at);

CREATE INDEX calls_of_transaction ON provider_call_audit (transaction_id);

-- Run by the service, which does not own the table: makes the months ahead and drops those past retention.
CREATE FUNCTION keep_audit_partitions(months_ahead integer, months_kept integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    month date;
    old   record;
BEGIN
    PERFORM pg_advisory_xact_lock(7230511002);
    FOR month IN SELECT generate_series(date_trunc('month', now()), date_trunc('month', now()) + make_interval(months => months_ahead),
                                        interval '1 month')::date LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS provider_call_audit_%s PARTITION OF provider_call_audit FOR VALUES FROM (%L) TO (%L)',
                       to_char(month, 'YYYYMM'), month, month + interval '1 month');
    END LOOP;
    FOR old IN SELECT c.relname
                 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'provider_call_audit'::regclass
                  AND c.relname < 'provider_call_audit_' || to_char(now() - make_interval(months => months_kept), 'YYYYMM') LOOP
        EXECUTE format('DROP TABLE %I', old.relname);
    END LOOP;
END $$;

SELECT keep_audit_partitions(3, 13);
