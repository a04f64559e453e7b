-- What was put away has its answer too: that it was, and by what it was replaced.
ALTER TABLE inbox DROP CONSTRAINT inbox_check;
ALTER TABLE inbox ADD CONSTRAINT answered_has_reply CHECK (CASE state WHEN 'done' THEN reply IS NOT NULL WHEN 'discarded' THEN true ELSE reply IS NULL END);
