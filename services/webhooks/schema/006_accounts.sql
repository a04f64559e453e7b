-- Providers number events within an account: two accounts of one store may use one id. The id comes first, as the store's other indexes begin
-- with the store: a plan that was made while little was there took this one for a list, and walked all of the store's events.
ALTER TABLE webhook_events ADD UNIQUE (provider_event_id, account, provider, store_id, environment);
ALTER TABLE webhook_events DROP CONSTRAINT webhook_events_store_id_environment_provider_provider_event_key;
