ALTER TABLE snapshot_tables ADD COLUMN notices bigint[];
COMMENT ON COLUMN snapshot_tables.notices IS 'what the source had noted of the table when it was begun, and its end answers';
