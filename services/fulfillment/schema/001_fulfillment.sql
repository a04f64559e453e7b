-- What is about one order is found by the order's id alone, and the store is compared afterwards (IS NOT DISTINCT FROM, which no index
-- answers): a plan made while tables were empty would else take the index of a whole store.

-- What a store ships with and collects tax by; rates, shipments, parcels; and what is recorded of tax.

CREATE TABLE store_settings (
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL CHECK (environment IN ('sandbox', 'production')),
    settings     jsonb,
    -- Goes up with every change of settings, rules or registrations, so that processes know when to read them again.
    revision     bigint      NOT NULL DEFAULT 1,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (store_id, environment)
);

CREATE TABLE tax_jurisdiction_rules (
    row_id                 bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Stays when a rule is changed; each version is a row of its own.
    id                     uuid         NOT NULL,
    store_id               uuid         NOT NULL,
    environment            text         NOT NULL,
    version                text         NOT NULL,
    country                text         NOT NULL,
    region                 text         NOT NULL,
    postal_codes           text[]       NOT NULL,
    postal_codes_excluded  text[]       NOT NULL,
    level                  text         NOT NULL,
    name                   text         NOT NULL,
    tax_code               text         NOT NULL,
    rate_percent           numeric(9,6) NOT NULL CHECK (rate_percent BETWEEN 0 AND 100),
    reason                 text         NOT NULL,
    priority               integer      NOT NULL,
    compound               boolean      NOT NULL,
    taxed_above            bigint       NOT NULL,
    taxed_up_to            bigint,
    shipping               text         NOT NULL,
    rounding               text         NOT NULL,
    scope                  text         NOT NULL,
    inclusive              text         NOT NULL,
    sourcing               text         NOT NULL,
    valid_from             date         NOT NULL,
    valid_to               date,
    source                 text         NOT NULL,
    created_at             timestamptz  NOT NULL DEFAULT now(),
    -- Out of use; what it led to keeps its version, so the row stays.
    removed_at             timestamptz,
    CHECK (valid_to IS NULL OR valid_to >= valid_from)
);

CREATE UNIQUE INDEX rules_in_use ON tax_jurisdiction_rules (store_id, environment, version) WHERE removed_at IS NULL;
CREATE INDEX rules_listed ON tax_jurisdiction_rules (store_id, environment, id) WHERE removed_at IS NULL;

CREATE TABLE tax_nexus_configs (
    id           uuid        PRIMARY KEY,
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL,
    config       jsonb       NOT NULL,
    -- The last thing said about its threshold, so that each is said once a period.
    warned       text        NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    removed_at   timestamptz
);

CREATE INDEX nexus_of_store ON tax_nexus_configs (store_id, environment, id) WHERE removed_at IS NULL;

CREATE TABLE tax_exemptions (
    id           uuid        PRIMARY KEY,
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL,
    customer_id  uuid        NOT NULL,
    exemption    jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    removed_at   timestamptz
);

CREATE INDEX exemptions_of_customer ON tax_exemptions (store_id, environment, customer_id) WHERE removed_at IS NULL;
CREATE INDEX exemptions_listed ON tax_exemptions (store_id, environment, id) WHERE removed_at IS NULL;

-- What was worked out for a snapshot, until it is finalized or nobody can pay it any more.
CREATE TABLE tax_quotes (
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL,
    snapshot_id  uuid        NOT NULL,
    order_id     uuid        NOT NULL,
    priced_hash  text        NOT NULL,
    tax_hash     text        NOT NULL,
    quote        jsonb       NOT NULL,
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (store_id, environment, snapshot_id)
);

CREATE INDEX tax_quotes_old ON tax_quotes (created_at);

-- What is decided about an order is decided on what was there: whoever writes moves the revision on.
CREATE TABLE orders_known (
    store_id     uuid    NOT NULL,
    environment  text    NOT NULL,
    order_id     uuid    NOT NULL,
    revision     integer NOT NULL,
    PRIMARY KEY (store_id, environment, order_id)
);

-- Which snapshot an order is paid by and how much was given back, as payments tell; the newest version of each intent counts.
CREATE TABLE order_payments (
    store_id         uuid    NOT NULL,
    environment      text    NOT NULL,
    intent_id        uuid    NOT NULL,
    order_id         uuid    NOT NULL,
    snapshot_id      uuid    NOT NULL,
    version          integer NOT NULL,
    status           text    NOT NULL,
    captured_amount  bigint  NOT NULL,
    refunded_amount  bigint  NOT NULL,
    PRIMARY KEY (store_id, environment, intent_id)
);

CREATE INDEX payments_of_order ON order_payments (order_id);

-- A sale's tax, and what reversed it. Never changed, never deleted.
CREATE TABLE tax_documents (
    id               uuid        PRIMARY KEY,
    store_id         uuid        NOT NULL,
    environment      text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('sale', 'reversal')),
    order_id         uuid        NOT NULL,
    snapshot_id      uuid        NOT NULL,
    tax_hash         text        NOT NULL,
    provider         text        NOT NULL,
    currency         text        NOT NULL,
    -- When the tax arose, and in which period the document is reported: for a reversal the one in which it was made.
    tax_date         date        NOT NULL,
    document_date    date        NOT NULL,
    ship_from        text        NOT NULL,
    ship_to          text        NOT NULL,
    ship_to_region   text        NOT NULL,
    tax_amount       bigint      NOT NULL,
    -- Each line's price as the customer paid it, or got it back; shipping's is under "shipping".
    line_amounts     jsonb       NOT NULL,
    evidence         jsonb       NOT NULL DEFAULT '{}',
    reverses         uuid        REFERENCES tax_documents (id),
    -- What a reversal is about, so that the same is never reversed twice.
    reference        text,
    correlation_id   text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'reversal') = (reverses IS NOT NULL AND reference IS NOT NULL))
);

-- An order's sale is recorded once.
CREATE UNIQUE INDEX one_sale_an_order ON tax_documents (store_id, environment, order_id) WHERE kind = 'sale';
CREATE INDEX documents_of_order ON tax_documents (order_id);
CREATE UNIQUE INDEX one_reversal_a_reference ON tax_documents (store_id, environment, reference) WHERE kind = 'reversal';
CREATE INDEX reversals_of_sale ON tax_documents (reverses) WHERE kind = 'reversal';

CREATE TABLE order_tax_lines (
    document_id      uuid         NOT NULL REFERENCES tax_documents (id),
    position         integer      NOT NULL,
    store_id         uuid         NOT NULL,
    environment      text         NOT NULL,
    order_id         uuid         NOT NULL,
    document_date    date         NOT NULL,
    -- Nothing for shipping.
    line             integer,
    tax_code         text         NOT NULL,
    quantity         integer      NOT NULL,
    country          text         NOT NULL,
    region           text         NOT NULL,
    level            text         NOT NULL,
    jurisdiction     text         NOT NULL,
    rate_percent     numeric(9,6) NOT NULL,
    taxable_amount   bigint       NOT NULL,
    untaxed_amount   bigint       NOT NULL,
    amount           bigint       NOT NULL,
    included         boolean      NOT NULL,
    reason           text         NOT NULL,
    rule_version     text         NOT NULL,
    PRIMARY KEY (document_id, position)
);

-- Exports read a period in the order in which it is written.
CREATE INDEX tax_lines_by_day ON order_tax_lines (store_id, environment, document_date, document_id, position);

CREATE TABLE tax_exports (
    store_id     uuid        NOT NULL,
    environment  text        NOT NULL,
    first_day    date        NOT NULL,
    last_day     date        NOT NULL,
    format       text        NOT NULL,
    row_count    bigint      NOT NULL,
    sha256       text        NOT NULL,
    -- The period was over: from then on nothing in it can change.
    closed       boolean     NOT NULL,
    exported_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (store_id, environment, first_day, last_day, format),
    CHECK (first_day <= last_day)
);

-- Sales by place and day, for thresholds from which on tax must be collected.
CREATE TABLE tax_sales_totals (
    store_id     uuid   NOT NULL,
    environment  text   NOT NULL,
    country      text   NOT NULL,
    region       text   NOT NULL,
    currency     text   NOT NULL,
    day          date   NOT NULL,
    amount       bigint NOT NULL,
    count        bigint NOT NULL,
    PRIMARY KEY (store_id, environment, country, region, currency, day)
);

-- What is recorded of tax stays as it is, and a period that was exported takes nothing more.
CREATE FUNCTION tax_stays() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        RAISE EXCEPTION 'recorded tax is never changed, only reversed' USING ERRCODE = 'restrict_violation';
    END IF;
    IF EXISTS (SELECT FROM tax_exports e
                WHERE e.store_id = NEW.store_id AND e.environment = NEW.environment AND e.closed
                  AND NEW.document_date BETWEEN e.first_day AND e.last_day) THEN
        RAISE EXCEPTION 'the period of % is exported and locked', NEW.document_date USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER documents_stay BEFORE INSERT OR UPDATE OR DELETE ON tax_documents FOR EACH ROW EXECUTE FUNCTION tax_stays();
CREATE TRIGGER lines_stay BEFORE UPDATE OR DELETE ON order_tax_lines FOR EACH ROW EXECUTE FUNCTION tax_stays();

-- Shipping

CREATE TABLE shipment_rates (
    id                uuid        PRIMARY KEY,
    store_id          uuid        NOT NULL,
    environment       text        NOT NULL,
    order_id          uuid        NOT NULL,
    -- What the order said when they were quoted.
    priced_hash       text        NOT NULL,
    carrier           text        NOT NULL,
    provider_rate_id  text        NOT NULL,
    service           text        NOT NULL,
    amount            bigint      NOT NULL CHECK (amount >= 0),
    currency          text        NOT NULL,
    transit_days      integer,
    packages          jsonb       NOT NULL,
    -- What the order said, where the rate was asked for apart from a quote: a label can be bought for an order that prices its shipping itself.
    content           jsonb,
    quoted_at         timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL
);

CREATE INDEX rates_of_order ON shipment_rates (order_id);
CREATE INDEX rates_old ON shipment_rates (quoted_at);

CREATE TABLE shipments (
    id                uuid        PRIMARY KEY,
    store_id          uuid        NOT NULL,
    environment       text        NOT NULL,
    order_id          uuid        NOT NULL,
    -- Nothing where the shop priced its shipping itself.
    snapshot_id       uuid,
    status            text        NOT NULL CHECK (status IN ('draft', 'finalized')),
    carrier           text        NOT NULL,
    service           text        NOT NULL,
    amount            bigint      NOT NULL,
    currency          text        NOT NULL,
    rate_id           uuid,
    content           jsonb       NOT NULL,
    ship_from         jsonb,
    packages          jsonb       NOT NULL,
    tracking_status   text        NOT NULL DEFAULT 'unknown',
    tracking_revision integer     NOT NULL DEFAULT 1,
    finalized_at      timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, environment, snapshot_id),
    CHECK ((status = 'finalized') = (finalized_at IS NOT NULL))
);

CREATE INDEX shipments_of_order ON shipments (order_id);
CREATE INDEX shipments_listed ON shipments (store_id, environment, id);
-- One order is shipped one way.
CREATE UNIQUE INDEX one_finalized_shipment ON shipments (store_id, environment, order_id) WHERE status = 'finalized';

-- Once a label was asked for, what the customer chose can no longer become something else.
CREATE FUNCTION choice_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a finalized shipment is never deleted' USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.order_id, NEW.snapshot_id, NEW.status, NEW.carrier, NEW.service, NEW.amount, NEW.currency, NEW.finalized_at)
       IS DISTINCT FROM
       (OLD.order_id, OLD.snapshot_id, OLD.status, OLD.carrier, OLD.service, OLD.amount, OLD.currency, OLD.finalized_at) THEN
        RAISE EXCEPTION 'the service of a finalized shipment cannot change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER choice_stays BEFORE UPDATE OR DELETE ON shipments FOR EACH ROW WHEN (OLD.status = 'finalized')
    EXECUTE FUNCTION choice_stays();

CREATE TABLE shipment_labels (
    id                    uuid        PRIMARY KEY,
    shipment_id           uuid        NOT NULL REFERENCES shipments (id),
    store_id              uuid        NOT NULL,
    environment           text        NOT NULL,
    order_id              uuid        NOT NULL,
    command_id            uuid        NOT NULL,
    command_digest        bytea       NOT NULL,
    is_return             boolean     NOT NULL,
    status                text        NOT NULL CHECK (status IN ('buying', 'failed', 'purchased', 'void_requested',
                                                                 'refunded', 'rejected', 'not_applicable')),
    carrier               text        NOT NULL,
    service               text        NOT NULL,
    document              text        NOT NULL,
    -- The exact request, so that every repeat is the same.
    request               jsonb       NOT NULL,
    provider_label_id     text,
    amount                bigint,
    currency              text        NOT NULL,
    reason                text        NOT NULL DEFAULT '',
    actor                 text        NOT NULL,
    correlation_id        text        NOT NULL,
    lease_token           integer     NOT NULL DEFAULT 1,
    lease_expires_at      timestamptz NOT NULL DEFAULT now(),
    next_look_at          timestamptz NOT NULL DEFAULT now(),
    looks                 integer     NOT NULL DEFAULT 0,
    -- Whoever changes the row moves it on.
    revision              integer     NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    UNIQUE (store_id, environment, command_id)
);

-- One label a shipment and direction; another only when the first is given back.
CREATE UNIQUE INDEX one_label ON shipment_labels (shipment_id, is_return)
 WHERE status IN ('buying', 'purchased', 'rejected', 'void_requested', 'not_applicable');
CREATE INDEX labels_of_shipment ON shipment_labels (shipment_id, id);
CREATE INDEX labels_by_provider ON shipment_labels (provider_label_id);
CREATE INDEX labels_of_order ON shipment_labels (order_id);
CREATE INDEX labels_due ON shipment_labels (next_look_at) WHERE status IN ('buying', 'void_requested');

CREATE TABLE shipment_packages (
    label_id         uuid        NOT NULL REFERENCES shipment_labels (id),
    position         integer     NOT NULL,
    store_id         uuid        NOT NULL,
    environment      text        NOT NULL,
    order_id         uuid        NOT NULL,
    shipment_id      uuid        NOT NULL,
    carrier          text        NOT NULL,
    -- Carriers use their numbers again after a while.
    tracking_number  text        NOT NULL,
    weight_grams     integer     NOT NULL,
    media_type       text        NOT NULL,
    document         bytea       NOT NULL,
    tracking         jsonb       NOT NULL DEFAULT '{}',
    revision         integer     NOT NULL DEFAULT 1,
    tracking_status  text        NOT NULL DEFAULT 'unknown',
    next_look_at     timestamptz NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (label_id, position)
);

CREATE INDEX packages_by_number ON shipment_packages (tracking_number, carrier, created_at);
CREATE INDEX packages_of_order ON shipment_packages (order_id);
CREATE INDEX packages_due ON shipment_packages (next_look_at)
 WHERE tracking_status NOT IN ('delivered', 'return_to_sender', 'cancelled');

-- What we and the carrier's account did: bought, voided, refunded, finalized.
CREATE TABLE shipment_events (
    id              uuid        PRIMARY KEY,
    store_id        uuid        NOT NULL,
    environment     text        NOT NULL,
    order_id        uuid        NOT NULL,
    shipment_id     uuid        NOT NULL REFERENCES shipments (id),
    label_id        uuid,
    event           text        NOT NULL,
    detail          text        NOT NULL DEFAULT '',
    actor           text        NOT NULL,
    correlation_id  text        NOT NULL,
    happened_at     timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX events_of_order ON shipment_events (store_id, environment, order_id, happened_at);

-- What was seen of parcels; the same sight is one row however often and in which words it is told.
CREATE TABLE tracking_events (
    label_id     uuid        NOT NULL,
    position     integer     NOT NULL,
    event_key    text        NOT NULL,
    event        jsonb       NOT NULL,
    occurred_at  timestamptz NOT NULL,
    source       text        NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (label_id, position, event_key),
    FOREIGN KEY (label_id, position) REFERENCES shipment_packages (label_id, position)
);

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
    PERFORM pg_advisory_xact_lock(7230511003);
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
