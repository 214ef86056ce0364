-- Not null and without a default, on purpose: a bridge of a release that knows nothing of detached lanes can take no
-- partition over. It would read on behind their rows, and what lies between would never reach their sink.
ALTER TABLE fences ADD COLUMN with_detached boolean NOT NULL DEFAULT true;
ALTER TABLE fences ALTER COLUMN with_detached DROP DEFAULT;
COMMENT ON COLUMN fences.with_detached IS 'whoever draws a fence takes the detached lanes over with it';
