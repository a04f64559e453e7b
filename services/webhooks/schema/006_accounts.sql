-- Providers number events within an account: two accounts of one store may use one id.
ALTER TABLE webhook_events ADD UNIQUE (store_id, environment, provider, account, provider_event_id);
ALTER TABLE webhook_events DROP CONSTRAINT webhook_events_store_id_environment_provider_provider_event_key;
