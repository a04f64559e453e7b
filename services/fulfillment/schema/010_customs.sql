-- What a carrier knew of customs and delivery when it named a price: other terms need another rate.
ALTER TABLE shipment_rates ADD COLUMN terms_digest text NOT NULL DEFAULT '';

-- A label of an order that states its shipping asks what its items cost without tax.
CREATE INDEX tax_quotes_of_order ON tax_quotes (order_id);
