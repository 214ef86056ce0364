-- The sink of a chaos run, in a schema of its own. A turn is one statement, so that a worker stopped in it holds no lock.
CREATE TABLE lanes (
    merchant text PRIMARY KEY,
    last bigint NOT NULL DEFAULT 0,
    token bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    regressions bigint NOT NULL DEFAULT 0,
    skipped bigint NOT NULL DEFAULT 0,
    fenced boolean NOT NULL
) WITH (fillfactor = 50);
COMMENT ON COLUMN lanes.last IS 'the highest number delivered: everything up to it came in order, or was skipped';
COMMENT ON COLUMN lanes.fenced IS 'a token lower than the last one is refused, not only counted';

CREATE TABLE gaps (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    merchant text NOT NULL,
    expected bigint NOT NULL,
    got bigint NOT NULL,
    token bigint NOT NULL,
    taker text NOT NULL
);
COMMENT ON TABLE gaps IS 'What came before its predecessor, and was refused.';

CREATE TABLE skips (merchant text, number bigint, PRIMARY KEY (merchant, number));
COMMENT ON TABLE skips IS 'Numbers that a person was allowed to skip.';

CREATE TABLE poison (
    merchant text,
    number bigint,
    kind text NOT NULL CHECK (kind IN ('park', 'fail')),
    record_offset bigint,
    PRIMARY KEY (merchant, number)
);
COMMENT ON TABLE poison IS 'Numbers that the sink cannot take.';
COMMENT ON COLUMN poison.record_offset IS 'where it was met in its partition; null: not yet';

CREATE TABLE away (nobody integer);
COMMENT ON TABLE away IS 'While it has a row the sink takes nothing.';

CREATE TABLE turns (at timestamptz NOT NULL DEFAULT clock_timestamp(), token bigint, taker text, deliveries jsonb);
COMMENT ON TABLE turns IS 'Everything that ever came, for whoever looks for a cause.';

-- deliveries: {merchant: [number, …]}. Per merchant: how many from the start were accepted, and why the next one was not.
CREATE FUNCTION take(turn_token bigint, taker text, deliveries jsonb)
RETURNS TABLE (owner text, accepted integer, trouble text) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    wanted jsonb;
    n bigint;
    lane lanes;
    missing bigint;
    poisonous text;
BEGIN
    IF EXISTS (SELECT FROM away) THEN
        RAISE EXCEPTION 'the sink is away' USING ERRCODE = 'cannot_connect_now';
    END IF;
    INSERT INTO turns (token, taker, deliveries) VALUES (turn_token, take.taker, take.deliveries);
    FOR owner, wanted IN SELECT key, value FROM jsonb_each(take.deliveries) ORDER BY key LOOP
        SELECT * INTO STRICT lane FROM lanes WHERE merchant = owner FOR UPDATE;
        accepted := 0;
        trouble := NULL;
        IF turn_token < lane.token THEN
            lane.regressions := lane.regressions + 1;
            IF lane.fenced THEN trouble := 'older token'; END IF;
        END IF;
        IF trouble IS NULL THEN
            FOR n IN SELECT value::bigint FROM jsonb_array_elements(wanted) LOOP
                SELECT p.kind INTO poisonous FROM poison p WHERE p.merchant = owner AND p.number = n;
                IF poisonous IS NOT NULL THEN
                    trouble := poisonous;
                    EXIT;
                ELSIF n <= lane.last THEN
                    lane.duplicates := lane.duplicates + 1;
                ELSE
                    missing := n - lane.last - 1;
                    IF missing > 0 AND missing <> (
                        SELECT count(*) FROM skips s WHERE s.merchant = owner AND s.number > lane.last AND s.number < n
                    ) THEN
                        trouble := 'gap';
                        INSERT INTO gaps (merchant, expected, got, token, taker)
                        VALUES (owner, lane.last + 1, n, turn_token, take.taker);
                        EXIT;
                    END IF;
                    lane.skipped := lane.skipped + missing;
                    lane.last := n;
                END IF;
                accepted := accepted + 1;
            END LOOP;
            UPDATE lanes SET last = lane.last, token = greatest(lanes.token, turn_token), duplicates = lane.duplicates,
                regressions = lane.regressions, skipped = lane.skipped WHERE merchant = owner;
        ELSE
            UPDATE lanes SET regressions = lane.regressions WHERE merchant = owner;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
