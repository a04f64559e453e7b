-- When a rule was last compared with its source, so that an old table of rates can say that it is old.
ALTER TABLE tax_jurisdiction_rules ADD COLUMN checked_on date;
