-- A parcel that news brought to its end is looked for once more: what of its way no news told is with the carrier. Older parcels
-- count as looked for.
ALTER TABLE shipment_packages ADD COLUMN looked_after_end boolean NOT NULL DEFAULT true;
DROP INDEX packages_due;
CREATE INDEX packages_due ON shipment_packages (next_look_at)
 WHERE tracking_status <> 'cancelled' AND (tracking_status NOT IN ('delivered', 'return_to_sender') OR NOT looked_after_end);
