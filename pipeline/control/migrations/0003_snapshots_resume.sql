-- Several requests of a source may wait; they are carried out one after the other.
DROP INDEX IF EXISTS snapshots_one_open;
ALTER TABLE snapshots
    ADD COLUMN table_name text,
    ADD COLUMN merchant text,
    ADD COLUMN replaces text,
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN generation integer;
CREATE INDEX snapshots_open ON snapshots (source, id) WHERE status IN ('requested', 'running');
COMMENT ON COLUMN snapshots.table_name IS 'null: every captured table';
COMMENT ON COLUMN snapshots.merchant IS 'null: every merchant';
COMMENT ON COLUMN snapshots.replaces IS 'the source that the merchant has moved away from: its rows are swept too';
COMMENT ON COLUMN snapshots.generation IS 'that of the source when it began; it begins again under another one';

CREATE TABLE snapshot_tables (
    snapshot bigint NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    table_name text NOT NULL,
    first_ev bigint,
    position text[],
    rows_estimated bigint NOT NULL DEFAULT 0,
    rows_published bigint NOT NULL DEFAULT 0,
    done boolean NOT NULL DEFAULT false,
    PRIMARY KEY (snapshot, table_name)
);
COMMENT ON TABLE snapshot_tables IS 'How far a snapshot is in each table: what lies before position is acknowledged by Kafka.';
COMMENT ON COLUMN snapshot_tables.first_ev IS 'the ev_id of the first chunk''s mark: rows that still have a lower version afterwards are gone';
