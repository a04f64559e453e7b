-- What a carrier knew of customs and delivery when it named a price: other terms need another rate.
ALTER TABLE shipment_rates ADD COLUMN terms_digest text NOT NULL DEFAULT '';
