-- A write made of several statements says what must have held; what did not is undone as a whole and tried again on what is there now.
CREATE FUNCTION must(held boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF held IS NOT TRUE THEN
        RAISE EXCEPTION 'somebody else was faster' USING ERRCODE = 'serialization_failure';
    END IF;
END $$;
