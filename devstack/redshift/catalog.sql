-- Redshift's system views and functions that loaders use, over PostgreSQL's catalog. Run at every start.
SET allow_system_table_mods = on;
CREATE SCHEMA IF NOT EXISTS stand_in;
CREATE SEQUENCE IF NOT EXISTS stand_in.query_id AS int START 1000 CYCLE;
CREATE TABLE IF NOT EXISTS stand_in.load_errors (
    userid int NOT NULL DEFAULT 100, slice int NOT NULL DEFAULT 0, tbl int, starttime timestamp NOT NULL DEFAULT
    (clock_timestamp() AT TIME ZONE 'UTC'), session int, query int, filename text, line_number bigint,
    colname text, type text, col_length text, position int NOT NULL DEFAULT 0, raw_line text,
    raw_field_value text, err_code int, err_reason text);
-- Redshift's own columns are CHAR, so values come padded with blanks: readers must trim them.
CREATE OR REPLACE VIEW pg_catalog.stl_load_errors AS
    SELECT userid, slice, tbl, starttime, session, query, filename::char(256) AS filename, line_number,
           colname::char(127) AS colname, type::char(10) AS type, col_length::char(10) AS col_length, position,
           raw_line::char(1024) AS raw_line, raw_field_value::char(1024) AS raw_field_value, err_code,
           err_reason::char(100) AS err_reason
      FROM stand_in.load_errors;
CREATE OR REPLACE VIEW pg_catalog.sys_load_error_detail AS
    SELECT userid AS user_id, query::bigint AS query_id, tbl AS table_id, starttime AS start_time,
           session AS session_id, filename::char(256) AS file_name, line_number, colname::char(127) AS column_name,
           type::char(10) AS column_type, col_length::char(10) AS column_length, position,
           err_code AS error_code, err_reason::char(512) AS error_message
      FROM stand_in.load_errors;
CREATE OR REPLACE VIEW pg_catalog.svv_all_tables AS
    SELECT table_catalog::varchar(128) AS database_name, table_schema::varchar(128) AS schema_name,
           table_name::varchar(128) AS table_name,
           (CASE table_type WHEN 'BASE TABLE' THEN 'TABLE' ELSE table_type END)::varchar(128) AS table_type
      FROM information_schema.tables WHERE table_schema <> 'stand_in';
CREATE OR REPLACE VIEW pg_catalog.svv_all_columns AS
    SELECT table_catalog::varchar(128) AS database_name, table_schema::varchar(128) AS schema_name,
           table_name::varchar(128) AS table_name, column_name::varchar(128) AS column_name,
           ordinal_position::int AS ordinal_position, column_default::varchar(4000) AS column_default,
           is_nullable::varchar(3) AS is_nullable,
           (CASE data_type WHEN 'jsonb' THEN 'super' WHEN 'bytea' THEN 'binary varying' ELSE data_type END)
               ::varchar(128) AS data_type,
           character_maximum_length::int AS character_maximum_length,
           numeric_precision::int AS numeric_precision, numeric_scale::int AS numeric_scale
      FROM information_schema.columns WHERE table_schema <> 'stand_in';
CREATE OR REPLACE VIEW pg_catalog.stv_slices AS
    SELECT 0 AS node, slice, slice AS localslice, 'D'::char AS type FROM generate_series(0, 1) AS slice;
CREATE OR REPLACE FUNCTION pg_catalog.getdate() RETURNS timestamp LANGUAGE sql STABLE AS
    $$SELECT date_trunc('second', now() AT TIME ZONE 'UTC')$$;
CREATE OR REPLACE FUNCTION pg_catalog.sysdate() RETURNS timestamp LANGUAGE sql STABLE AS
    $$SELECT now() AT TIME ZONE 'UTC'$$;
CREATE OR REPLACE FUNCTION pg_catalog.json_parse(text) RETURNS jsonb LANGUAGE sql IMMUTABLE STRICT AS
    $$SELECT $1::jsonb$$;
CREATE OR REPLACE FUNCTION pg_catalog.json_serialize(jsonb) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS
    $$SELECT $1::text$$;
CREATE OR REPLACE FUNCTION pg_catalog.strtol(text, int) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT AS
    $$SELECT CASE $2 WHEN 16 THEN ('x' || lpad($1, 16, '0'))::bit(64)::bigint WHEN 10 THEN $1::bigint END$$;
CREATE OR REPLACE FUNCTION pg_catalog.pg_last_copy_count() RETURNS bigint LANGUAGE sql STABLE AS
    $$SELECT coalesce(nullif(current_setting('stand_in.copied', true), ''), '0')::bigint$$;
CREATE OR REPLACE FUNCTION pg_catalog.pg_last_copy_id() RETURNS int LANGUAGE sql STABLE AS
    $$SELECT coalesce(nullif(current_setting('stand_in.copy_id', true), ''), '-1')::int$$;
