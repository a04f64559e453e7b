-- What rests until its caller comes back is forgotten like what was answered, if they never do.
CREATE INDEX idempotency_resting ON idempotency_keys (driven_at) WHERE status = 'in_progress' AND resting;
