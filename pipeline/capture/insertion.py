"""How our functions in the source write into the queue: straight into PgQ's event tables, as the functions' owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from pipeline.capture.image import INTEGERS, TEXTS, base, unmodified
from pipeline.capture.session import MONETARY_LOCALE, TEXT_SETTINGS
from pipeline.domain.table import Table

_COLUMNS = sql.SQL("ev_id, ev_time, ev_type, ev_data, ev_extra1, ev_extra2, ev_extra3, ev_extra4")


@dataclass(frozen=True, slots=True)
class QueueNames:
    """Where PgQ keeps a queue: its id, the prefix of its event tables, its event sequence."""

    id: int
    events: str
    sequence: str


def insertion(queue: QueueNames, template: LiteralString, **parts: sql.Composable) -> sql.Composed:
    """PL/pgSQL that draws an ev_id into ``v_ev`` and runs `template` for the event table in use.

    The template's ``{into}`` is ``INSERT INTO <event table> (<columns>)``. Statements are static, one per event table:
    their plans are kept, an EXECUTE would be planned for each row.
    """
    draw = sql.SQL(
        "SELECT queue_cur_table, nextval({}) INTO v_slot, v_ev FROM pgq.queue WHERE queue_id = {};"
    ).format(sql.Literal(queue.sequence), sql.Literal(queue.id))
    return draw + sql.SQL("\n  ") + by_slot(queue, template, **parts)


def by_slot(queue: QueueNames, template: LiteralString, **parts: sql.Composable) -> sql.Composed:
    """The template once for each event table, chosen by ``v_slot``."""
    branches = []
    for slot in range(3):
        table = sql.Identifier(*f"{queue.events}_{slot}".split("."))
        into = sql.SQL("INSERT INTO {} ({})").format(table, _COLUMNS)
        branches.append(sql.SQL(template).format(into=into, **parts))
    return sql.SQL("IF v_slot = 0 THEN {}\n  ELSIF v_slot = 1 THEN {}\n  ELSE {}\n  END IF;").format(
        *branches
    )


def definer(
    signature: sql.Composable, returns: LiteralString, body: sql.Composable, table: Table | None = None
) -> sql.Composed:
    """A function of schema cdc that runs as its owner: application roles have no rights on the queue.

    The search_path is fixed because of that, and the settings that decide how values read. Each costs time at every call:
    the trigger of `table` has those alone that its columns read.
    """
    clauses = sql.SQL(" ").join(
        sql.SQL("SET {} = {}").format(sql.SQL(setting), sql.Literal(value))
        for setting, value in {**_text_settings(table), **_further_settings(table)}.items()
    )
    return sql.SQL(
        "CREATE OR REPLACE FUNCTION cdc.{} RETURNS {} LANGUAGE plpgsql SECURITY DEFINER"
        " SET search_path = pg_catalog, pg_temp {} AS {}"
    ).format(signature, sql.SQL(returns), clauses, sql.Literal(sql.Composed([body]).as_string(None)))


# What an image reads of TEXT_SETTINGS: JSON has dates and times in one form, whatever the style.
_READS: dict[str, tuple[LiteralString, ...]] = {
    "timestamp with time zone": ("timezone",),
    "timestamp without time zone": (),
    "date": (),
    "time without time zone": (),
    "real": ("extra_float_digits",),
    "double precision": ("extra_float_digits",),
    "bytea": ("bytea_output",),
    TEXTS: (),
}
# These read alike under all settings, as JSON and as text.
_STEADY = INTEGERS | {
    "numeric",
    "character",
    "character varying",
    "text",
    "boolean",
    "uuid",
    "json",
    "jsonb",
    "inet",
}


def _text_settings(table: Table | None) -> dict[LiteralString, LiteralString]:
    """Those that the function of `table` needs: all, unless each column's type is known to read few of them."""
    if table is None or table.parent is not None:
        return TEXT_SETTINGS
    read = set[str]()
    for column in table.columns:
        kind = unmodified(column.stored) or base(column)
        as_text = column.name in table.key or column.rule is not None
        if kind not in _STEADY and (as_text or kind not in _READS):
            return TEXT_SETTINGS
        read.update(_READS.get(kind, ()))
    return {name: value for name, value in TEXT_SETTINGS.items() if name in read}


def _further_settings(table: Table | None) -> dict[LiteralString, LiteralString]:
    settings: dict[LiteralString, LiteralString] = {}
    if table is not None and (table.strict or table.parent is not None):
        settings["enable_seqscan"] = "off"  # a plan made while a table was empty would scan it for ever
    if table is not None and any(column.stored == "money" for column in table.columns):
        settings["lc_monetary"] = MONETARY_LOCALE
    return settings
