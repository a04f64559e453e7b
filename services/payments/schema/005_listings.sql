-- What staff look at: orders and provider calls, the newest first, and payments that need somebody.
CREATE INDEX orders_listed ON orders (store_id, environment, created_at DESC, id DESC);
CREATE INDEX calls_listed ON provider_call_audit (store_id, environment, id DESC);
CREATE INDEX intents_needing_attention ON payment_intents (store_id, environment, id) WHERE attention IS NOT NULL OR status = 'conflicted';
