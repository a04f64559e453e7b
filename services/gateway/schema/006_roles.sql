-- Staff have roles of their own: support reads, replays and retries, finance moves and settles money, operators work across stores.
ALTER TABLE api_keys
    DROP CONSTRAINT api_keys_role_check,
    ADD CONSTRAINT api_keys_role_check CHECK (role IN ('checkout', 'support', 'finance', 'admin', 'operator'));

-- When somebody last used a session by hand: one that is idle ends before its time.
ALTER TABLE console_sessions ADD COLUMN used_at timestamptz NOT NULL DEFAULT now();
