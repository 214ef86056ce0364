-- Never used again, whatever becomes of a lane: what an older one says of it is told apart by it.
CREATE SEQUENCE incarnations;

CREATE TABLE detached (
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    lane text NOT NULL,
    first_offset bigint NOT NULL,
    until_offset bigint,
    incarnation bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('running', 'paused', 'parked')),
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, topic, partition, lane)
) WITH (fillfactor = 80); -- first_offset moves often
CREATE INDEX detached_lane ON detached (consumer, lane);
COMMENT ON TABLE detached IS 'Lanes that do not hold their partition back: what they have not accepted is not committed for.';
COMMENT ON COLUMN detached.first_offset IS 'everything below it is accepted';
COMMENT ON COLUMN detached.until_offset IS 'from here on the live reader feeds the lane; null: it passes the lane over';
COMMENT ON COLUMN detached.state IS 'only running lanes are fed';
COMMENT ON COLUMN detached.since IS 'when it came into this state';

CREATE TABLE lane_requests (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    lane text NOT NULL,
    verb text NOT NULL CHECK (verb IN ('pause', 'resume', 'release', 'skip', 'rewind', 'resync')),
    to_offset bigint,
    expected_first bigint,
    actor text NOT NULL,
    reason text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    refusal text,
    CHECK (verb NOT IN ('skip', 'rewind') OR to_offset IS NOT NULL),
    CHECK (verb <> 'skip' OR expected_first IS NOT NULL)
);
CREATE INDEX lane_requests_open ON lane_requests (consumer, id) WHERE finished_at IS NULL;
CREATE INDEX lane_requests_finished ON lane_requests (finished_at) WHERE finished_at IS NOT NULL;
COMMENT ON TABLE lane_requests IS 'What people ask of lanes; the bridge that holds the partition carries it out.';
COMMENT ON COLUMN lane_requests.refusal IS 'why nothing was changed; null: it was carried out';

CREATE TABLE paused_consumers (
    consumer text PRIMARY KEY,
    actor text NOT NULL,
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE paused_consumers IS 'Consumers whose bridges read nothing until they are resumed.';

CREATE TABLE sweep_waits (
    consumer text NOT NULL,
    sweep text NOT NULL REFERENCES sweeps (id) ON DELETE CASCADE,
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    PRIMARY KEY (consumer, topic, partition, record_offset)
);
CREATE INDEX sweep_waits_sweep ON sweep_waits (sweep);
COMMENT ON TABLE sweep_waits IS 'Sweeps before whose record only detached lanes have something left: the offsets are committed past them.';
