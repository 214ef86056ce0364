CREATE TABLE topic_identities (
    consumer text NOT NULL,
    topic text NOT NULL,
    cluster text,
    id text,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, topic)
);
COMMENT ON TABLE topic_identities IS 'The topics that a consumer''s offsets belong to, here, in Kafka and in Redis.';
COMMENT ON COLUMN topic_identities.id IS 'drawn by Kafka when the topic was made; null: the broker does not tell';
