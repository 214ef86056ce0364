"""``cdc.emit(merchant, type, payload)``: a domain event, written in the application's own transaction.

It takes its place in the merchant's order among the row changes. Whoever may call it is named in the settings; nobody
else may, and calling it is all that they may.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from pipeline.capture.insertion import QueueNames, definer, insertion
from pipeline.capture.oversize import DEEPEST

OPERATION = "event"
LARGEST_PAYLOAD = 900_000  # bytes of JSON: with the envelope it fits a record
_FUNCTION = sql.SQL("cdc.emit(text, text, jsonb)")

# Unlike a trigger it may fail: its caller asked for exactly this event, and would otherwise believe it was told.
_BODY = sql.SQL("""
#variable_conflict use_variable
DECLARE
  v_slot integer;
  v_ev bigint;
  v_payload text := payload::text;
BEGIN
  IF merchant IS NULL OR merchant COLLATE "C" !~ '^[A-Za-z0-9][A-Za-z0-9_-]{{0,63}}$' THEN
    RAISE EXCEPTION 'cdc.emit: this is no merchant id' USING ERRCODE = 'invalid_parameter_value',
      HINT = 'letters, digits, _ and -, at most 64, beginning with a letter or digit';
  END IF;
  IF type IS NULL OR type COLLATE "C" !~ '^[a-z][a-z0-9_.]{{0,62}}$' THEN
    RAISE EXCEPTION 'cdc.emit: this is no event type' USING ERRCODE = 'invalid_parameter_value',
      HINT = 'lower-case letters, digits, _ and ., at most 63, beginning with a letter';
  END IF;
  IF v_payload IS NULL OR octet_length(v_payload) > {largest} THEN
    RAISE EXCEPTION 'cdc.emit: the payload is null or larger than {largest} bytes'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- Counted first: looking for levels costs more than emitting.
  IF length(v_payload) - length(translate(v_payload, '[{{', '')) > {deepest} THEN
    IF jsonb_path_exists(payload, {too_deep}) THEN
      RAISE EXCEPTION 'cdc.emit: the payload has more than {deepest} levels' USING ERRCODE = 'invalid_parameter_value';
    END IF;
  END IF;
  -- Before the ev_id, as in a writer of rows: whoever waits for those with a lower one must know of this transaction.
  PERFORM txid_current();
  {insertion}
END
""")
_INSERT = """{into} VALUES (v_ev, now(), {operation}, v_payload, 'cdc.emit', NULL, merchant, type);"""


def statements(queue: QueueNames, callers: Iterable[str]) -> Iterable[sql.Composed]:
    """The function, and the right to call it for these roles alone."""
    body = _BODY.format(
        largest=sql.Literal(LARGEST_PAYLOAD),
        deepest=sql.Literal(DEEPEST),
        too_deep=sql.Literal(f"$.**{{{DEEPEST + 1} to last}}"),
        insertion=insertion(queue, _INSERT, operation=sql.Literal(OPERATION)),
    )
    yield definer(sql.SQL("emit(merchant text, type text, payload jsonb)"), "void", body)
    names = sorted(callers)
    yield _revoked(names)
    for name in names:
        role = sql.Identifier(name)
        yield sql.SQL("GRANT USAGE ON SCHEMA cdc TO {}").format(role)
        yield sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(_FUNCTION, role)


def _revoked(kept: list[str]) -> sql.Composed:
    """Takes the rights from everybody who has them and is not named any more, PUBLIC included."""
    body = sql.SQL("""
DECLARE
  v_role text;
BEGIN
  FOR v_role IN SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
      FROM (SELECT coalesce(proacl, acldefault('f', proowner)) AS acl, proowner AS owner FROM pg_proc
              WHERE oid = 'cdc.emit(text, text, jsonb)'::regprocedure
            UNION ALL
            SELECT coalesce(nspacl, acldefault('n', nspowner)), nspowner FROM pg_namespace WHERE nspname = 'cdc') object,
           aclexplode(acl)
      WHERE grantee <> owner AND NOT (grantee <> 0 AND pg_get_userbyid(grantee) = ANY ({kept}::text[])) LOOP
    EXECUTE 'REVOKE ALL ON FUNCTION cdc.emit(text, text, jsonb) FROM ' || v_role;
    EXECUTE 'REVOKE ALL ON SCHEMA cdc FROM ' || v_role;
  END LOOP;
END
""").format(kept=sql.Literal(kept))
    return sql.SQL("DO {}").format(sql.Literal(body.as_string(None)))
