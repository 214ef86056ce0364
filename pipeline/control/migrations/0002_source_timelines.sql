ALTER TABLE sources ADD COLUMN IF NOT EXISTS timeline integer;
COMMENT ON COLUMN sources.timeline IS 'The highest timeline a relay has worked on: a server on a lower one was replaced.';
