CREATE TABLE placements (
    merchant text PRIMARY KEY,
    source text NOT NULL,
    target text NOT NULL,
    step text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    reason text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
COMMENT ON TABLE placements IS 'A merchant''s newest move between sources: the last step that was completed.';

ALTER TABLE sources ADD COLUMN raise_above integer;
COMMENT ON COLUMN sources.raise_above IS 'asked of the source''s relay: raise the generation above this one, between two batches';
