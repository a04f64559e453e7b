-- The processes of this service that run, each with its figures as of a moment ago. Not worth a log: every process writes its row anew all the
-- time, so that there is room for that in its page.
CREATE UNLOGGED TABLE service_replicas (
    -- The host's name and a number of the process's own.
    name      text        PRIMARY KEY,
    figures   jsonb       NOT NULL,
    -- By the database's clock; a process that was killed is not seen any more.
    seen_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
