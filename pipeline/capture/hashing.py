"""``cdc.hash``: what the column rule ``hash`` captures: HMAC-SHA-256 under a key that never leaves the database.

Equal values have equal hashes within one source, so they can be matched and counted; without the key nobody can try
out card or social security numbers until one fits. The key is drawn at the first install, in the source, and lies in
``cdc.settings``, which nobody but the owner of the triggers may read.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

_INNER, _OUTER = 0x36, 0x5C  # RFC 2104; the key has 32 of a block's 64 bytes


def statements() -> Iterable[sql.Composed | sql.SQL]:
    """The key, made once, and the function."""
    yield sql.SQL("CREATE TABLE IF NOT EXISTS cdc.settings (name text PRIMARY KEY, value bytea NOT NULL)")
    yield sql.SQL("REVOKE ALL ON cdc.settings FROM PUBLIC")
    yield sql.SQL(
        "INSERT INTO cdc.settings SELECT 'hash_key', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))"
        " ON CONFLICT (name) DO NOTHING"
    )
    for name, byte in (("hash_inner", _INNER), ("hash_outer", _OUTER)):
        yield _padded(name, byte)
    yield sql.SQL(
        "CREATE OR REPLACE FUNCTION cdc.hash(value text) RETURNS text LANGUAGE plpgsql STABLE STRICT"
        " SET search_path = pg_catalog, pg_temp AS {}"
    ).format(sql.Literal(_BODY))
    yield sql.SQL("REVOKE ALL ON FUNCTION cdc.hash(text) FROM PUBLIC")


# STRICT: without its key a value is not hashed otherwise, the image fails.
_BODY = """
DECLARE
  v_inner bytea;
  v_outer bytea;
BEGIN
  SELECT i.value, o.value INTO STRICT v_inner, v_outer FROM cdc.settings i, cdc.settings o
    WHERE i.name = 'hash_inner' AND o.name = 'hash_outer';
  RETURN encode(sha256(v_outer || sha256(v_inner || convert_to(value, 'UTF8'))), 'hex');
END
"""


def _padded(name: str, byte: int) -> sql.Composed:
    """The key, filled up to a block and XORed with `byte`: computed once, not for every row."""
    return sql.SQL(
        "INSERT INTO cdc.settings SELECT {name}, string_agg(set_byte('\\x00', 0,"
        " CASE WHEN place < 32 THEN get_byte(value, place) ELSE 0 END # {byte}), '' ORDER BY place)"
        " FROM cdc.settings, generate_series(0, 63) place WHERE name = 'hash_key' GROUP BY name"
        " ON CONFLICT (name) DO NOTHING"
    ).format(name=sql.Literal(name), byte=sql.Literal(byte))
