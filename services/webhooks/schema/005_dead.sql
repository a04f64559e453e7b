-- What was given up and waits for somebody is counted again and again, and is seldom much.
CREATE INDEX events_dead ON webhook_events (id) WHERE status = 'dead';
