CREATE TABLE sweeps (
    id text PRIMARY KEY,
    source text NOT NULL,
    table_name text NOT NULL,
    type text NOT NULL,
    merchant text,
    version bigint NOT NULL,
    why text NOT NULL CHECK (why IN ('truncate', 'snapshot', 'move')),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE sweeps IS 'What a source wrote of a type at a lower version is gone; written by the first bridge that reads its record.';

CREATE TABLE sweep_passages (
    consumer text NOT NULL,
    sweep text NOT NULL REFERENCES sweeps (id) ON DELETE CASCADE,
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    passed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, sweep, topic, partition)
);
COMMENT ON TABLE sweep_passages IS 'The consumer''s sink has accepted everything before the sweep''s record in this partition.';

CREATE TABLE sweep_runs (
    consumer text NOT NULL,
    sweep text NOT NULL REFERENCES sweeps (id) ON DELETE CASCADE,
    rows bigint NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, sweep)
);
COMMENT ON TABLE sweep_runs IS 'Sweeps that a consumer has carried out, and how many rows each removed.';

ALTER TABLE rejected ADD COLUMN source text, ADD COLUMN stale_at timestamptz;
COMMENT ON COLUMN rejected.stale_at IS 'when a sweep made it irrelevant: the row it told of is gone';
