-- What came first, without asking a clock: a part is numbered before its lanes are acknowledged, and a passage after that.
CREATE SEQUENCE moments;
ALTER TABLE parts ADD COLUMN moment bigint NOT NULL DEFAULT nextval('moments');
ALTER TABLE sweep_passages ADD COLUMN moment bigint NOT NULL DEFAULT nextval('moments');
COMMENT ON COLUMN sweep_passages.moment IS 'parts with a lower one were accepted before';
