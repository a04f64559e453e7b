-- A service also promises commands: to itself, about what it has taken in, and to others.
ALTER TABLE outbox ADD COLUMN exchange text NOT NULL DEFAULT 'tender.events';
