-- With one provider account for several stores an event belongs to the store of its payment, label or parcel. Until that is known its store_id is
-- 00000000-0000-0000-0000-000000000000, which no store has, so that no store reads it; then it is filed under that store.
ALTER TABLE webhook_events ADD COLUMN received_for uuid;
UPDATE webhook_events SET received_for = store_id;
ALTER TABLE webhook_events ALTER COLUMN received_for SET NOT NULL;
-- A repeat is known by the account that the event came in by, which stays what it was when the event is filed under a store.
ALTER TABLE webhook_events ADD UNIQUE (provider_event_id, account, provider, received_for, environment);
ALTER TABLE webhook_events DROP CONSTRAINT webhook_events_provider_event_id_account_provider_store_id__key;
