-- Staff look at provider calls, the newest first.
CREATE INDEX calls_listed ON provider_call_audit (store_id, environment, id DESC);
