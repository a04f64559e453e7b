-- What a tax rule may ask of a sale, and how else it may be worked out; what these say is in domain/tax/rules.py.
ALTER TABLE tax_jurisdiction_rules
    ADD COLUMN taxed_per            text         NOT NULL DEFAULT 'article' CHECK (taxed_per IN ('article', 'sale')),
    ADD COLUMN applies_from         bigint,
    ADD COLUMN applies_above        bigint,
    ADD COLUMN applies_up_to        bigint,
    ADD COLUMN applies_below        bigint,
    ADD COLUMN currency             text         NOT NULL DEFAULT '',
    ADD COLUMN movement             text         NOT NULL DEFAULT 'any' CHECK (movement IN ('any', 'within_region', 'between_regions')),
    ADD COLUMN combined_max_percent numeric(9,6) CHECK (combined_max_percent > 0 AND combined_max_percent <= 100),
    ADD COLUMN flat_amount          bigint       CHECK (flat_amount > 0),
    ADD COLUMN rounding_unit        integer      NOT NULL DEFAULT 1 CHECK (rounding_unit BETWEEN 1 AND 10000);

-- A fee takes no rate.
ALTER TABLE tax_jurisdiction_rules ADD CHECK (flat_amount IS NULL OR rate_percent = 0);
