-- What the EU's threshold counts: sales to consumers in another member state (Directive 2006/112/EC, Article 59c), less what went back.
ALTER TABLE tax_documents ADD COLUMN distance_sale boolean NOT NULL DEFAULT false;

-- What goes back of a day's sales, and what comes back after all, are rows of their own: one write may hold a sale and both.
ALTER TABLE tax_sales_totals
    ADD COLUMN kind          text    NOT NULL DEFAULT 'sale' CHECK (kind IN ('sale', 'reversal', 'reinstatement')),
    ADD COLUMN distance_sale boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT tax_sales_totals_pkey,
    ADD PRIMARY KEY (store_id, environment, country, region, currency, day, kind, distance_sale);
