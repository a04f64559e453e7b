-- Who makes a delivery holds its lease: a sender that stood still while another one made it writes nothing any more.
ALTER TABLE webhook_deliveries ADD COLUMN lease_token uuid;

-- How many time-outs an endpoint has had since its last answer: the more, the fewer deliveries are out for it at once.
ALTER TABLE webhook_endpoints ADD COLUMN timeout_count integer NOT NULL DEFAULT 0 CHECK (timeout_count >= 0);
-- The end of the pause that the endpoint requested (Retry-After); nothing is delivered to it before.
ALTER TABLE webhook_endpoints ADD COLUMN paused_until timestamptz;

-- Each of the secrets is sealed so that it opens in the row of its endpoint alone: `sealed:<key version>:<base64>`. The version is that of all of a
-- row's secrets; 0 says that they were written before they were sealed, which the service makes good when it runs.
ALTER TABLE webhook_endpoints ADD COLUMN key_version integer NOT NULL DEFAULT 0;
-- Rotation of the key searches for what is sealed with older ones.
CREATE INDEX endpoints_by_key ON webhook_endpoints (key_version);
