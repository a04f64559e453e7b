-- A parcel that a webhook brought to its end is looked for one last time: the carrier knows what no webhook reported. Older parcels
-- count as looked for.
ALTER TABLE shipment_packages ADD COLUMN looked_after_end boolean NOT NULL DEFAULT true;
DROP INDEX packages_due;
CREATE INDEX packages_due ON shipment_packages (next_look_at)
 WHERE tracking_status <> 'cancelled' AND (tracking_status NOT IN ('delivered', 'return_to_sender') OR NOT looked_after_end);
