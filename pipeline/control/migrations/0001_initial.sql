CREATE TABLE sources (
    name text PRIMARY KEY,
    identity text NOT NULL,
    generation integer NOT NULL CHECK (generation BETWEEN 1 AND 16383),
    installed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE sources IS 'Each source database once seen: who it is and its generation, mirrored in the source.';

CREATE TABLE tables (
    source text NOT NULL,
    name text NOT NULL,
    definition jsonb NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, name)
);
COMMENT ON TABLE tables IS 'Captured tables as their triggers were generated: columns, key, merchant column, type.';

CREATE TABLE fences (
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    fence bigint NOT NULL,
    PRIMARY KEY (consumer, topic, partition)
);
COMMENT ON TABLE fences IS 'Raised at every assignment of a partition: a bridge with a lower fence is refused.';

CREATE TABLE snapshots (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source text NOT NULL,
    status text NOT NULL DEFAULT 'requested' CHECK (status IN ('requested', 'running', 'done', 'failed')),
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    rows_estimated bigint NOT NULL DEFAULT 0,
    rows_published bigint NOT NULL DEFAULT 0,
    detail text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX snapshots_one_open ON snapshots (source) WHERE status IN ('requested', 'running');
COMMENT ON TABLE snapshots IS 'Requests written by the CLI, carried out by the relay of that source.';

CREATE TABLE rejected (
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    merchant text,
    type text,
    key text,
    version bigint,
    reason text NOT NULL,
    payload bytea NOT NULL,
    set_aside_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, topic, partition, record_offset)
);
COMMENT ON TABLE rejected IS 'Events set aside with their reason: never lost, never in the way.';

CREATE TABLE parts (
    id uuid PRIMARY KEY,
    type text NOT NULL,
    shape text NOT NULL,
    marker text NOT NULL,
    location text NOT NULL,
    rows bigint NOT NULL CHECK (rows > 0),
    bytes bigint NOT NULL CHECK (bytes > 0),
    lowest_version bigint NOT NULL,
    highest_version bigint NOT NULL,
    staged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    batch_id uuid
);
CREATE INDEX parts_waiting ON parts (type, staged_at) WHERE batch_id IS NULL;
CREATE INDEX parts_batch ON parts (batch_id) WHERE batch_id IS NOT NULL;
COMMENT ON TABLE parts IS 'Files staged in S3; batch_id null = waiting. A row here is what "the warehouse accepted" means.';

CREATE TABLE loads (
    batch_id uuid PRIMARY KEY,
    type text NOT NULL,
    status text NOT NULL DEFAULT 'frozen' CHECK (status IN ('frozen', 'loaded', 'failed')),
    parts integer NOT NULL,
    rows bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    applied bigint,
    stale bigint,
    error text NOT NULL DEFAULT '',
    frozen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
CREATE UNIQUE INDEX loads_one_open ON loads (type) WHERE status <> 'loaded';
COMMENT ON TABLE loads IS 'Batches of parts: frozen before the first attempt, loaded once, or failed and waiting for a person.';

CREATE TABLE actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    verb text NOT NULL,
    subject text NOT NULL,
    reason text NOT NULL DEFAULT '',
    details jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE actions IS 'What people and processes decided: installs, start positions, retried loads.';
