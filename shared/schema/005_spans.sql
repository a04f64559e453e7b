-- What took how long in which request, of the sampled ones, for a day. Not worth a log: after a crash of the server it is empty.
CREATE UNLOGGED TABLE spans (
    trace_id       text        NOT NULL,
    span_id        text        NOT NULL,
    -- Empty where the trace begins; a caller's own span where it traces too.
    parent_id      text        NOT NULL,
    name           text        NOT NULL,
    kind           text        NOT NULL,
    started_at     timestamptz NOT NULL,
    duration_us    bigint      NOT NULL,
    failed         boolean     NOT NULL,
    attributes     jsonb       NOT NULL,
    correlation_id text,
    -- Whose request it was, where the span knows it.
    store_id       uuid,
    environment    text
);

CREATE INDEX spans_of_trace ON spans (trace_id);
CREATE INDEX spans_by_correlation ON spans (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX spans_begun ON spans (store_id, environment, started_at DESC) WHERE kind = 'server';
CREATE INDEX spans_by_age ON spans (started_at);
