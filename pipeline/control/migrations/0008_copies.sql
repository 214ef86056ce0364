CREATE TABLE copy_objects (
    key text PRIMARY KEY,
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX copy_objects_partition ON copy_objects (consumer, topic, partition, created_at);
COMMENT ON TABLE copy_objects IS 'Objects in S3 that hold copies of records; written here before they are put, so that none is forgotten.';

CREATE TABLE copies (
    consumer text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    lane text NOT NULL,
    first_offset bigint NOT NULL,
    end_offset bigint NOT NULL,
    object text REFERENCES copy_objects (key),
    PRIMARY KEY (consumer, topic, partition, lane, first_offset),
    FOREIGN KEY (consumer, topic, partition, lane) REFERENCES detached ON DELETE CASCADE
);
CREATE INDEX copies_object ON copies (object);
COMMENT ON TABLE copies IS 'What of detached lanes is copied to S3 before it passes retention; it goes with the lane''s row.';
COMMENT ON COLUMN copies.object IS 'holds all of the lane''s records from first_offset up to before end_offset; null: there are none';
