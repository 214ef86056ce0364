"""A table's columns as the catalog has them, and as they are captured: every type, by a rule where it has no own way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline import settings
from pipeline.capture.image import IMAGE_TYPES, INTEGERS, TEXTS
from pipeline.capture.session import Connection
from pipeline.domain.table import Column

_MERCHANT_TYPES = INTEGERS | {"text", "character varying", "character", "uuid"}
_MONEY = "numeric(20,2)"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One column. ``type`` is its type as declared, ``resolved`` that without domains, ``base`` also without modifier.

    ``listed``: an array of built-in elements, which can be read as a list of texts. ``sorted``: PostgreSQL's own operators
    compare it, not an extension's, which are not found without its schema in the search_path.
    """

    name: str
    type: str
    resolved: str
    base: str
    nullable: bool
    listed: bool
    deterministic: bool
    sorted: bool


def read(connection: Connection, oid: int) -> list[Attribute]:
    """The columns of a table, in their order."""
    return [Attribute(*row) for row in connection.execute(_QUERY, {"table": oid})]


_QUERY = """
WITH RECURSIVE resolved AS (
  SELECT attnum, atttypid AS type, atttypmod AS modifier FROM pg_attribute
    WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT r.attnum, t.typbasetype, coalesce(nullif(t.typtypmod, -1), r.modifier)
    FROM resolved r JOIN pg_type t ON t.oid = r.type WHERE t.typtype = 'd'
)
SELECT a.attname, format_type(a.atttypid, a.atttypmod), format_type(r.type, r.modifier), format_type(r.type, NULL),
       NOT a.attnotnull, coalesce(e.typarray = r.type AND e.oid < 16384, false), coalesce(l.collisdeterministic, true),
       t.typnamespace = 'pg_catalog'::regnamespace OR t.typtype <> 'b' OR t.typcategory = 'A'
FROM resolved r
JOIN pg_attribute a ON a.attrelid = %(table)s AND a.attnum = r.attnum
JOIN pg_type t ON t.oid = r.type AND t.typtype <> 'd'
LEFT JOIN pg_type e ON e.oid = t.typelem
LEFT JOIN pg_collation l ON l.oid = a.attcollation
ORDER BY a.attnum
"""


def captured(attributes: Sequence[Attribute], configured: settings.SourceTable) -> tuple[Column, ...]:
    """The columns as they leave the database."""
    return tuple(
        _column(attribute, configured) for attribute in attributes if attribute.name not in configured.exclude
    )


def _column(attribute: Attribute, configured: settings.SourceTable) -> Column:
    rule = configured.columns.get(attribute.name)
    if rule is not None:
        return Column(attribute.name, "text", attribute.nullable, attribute.type, rule)
    if attribute.base == "money":
        return Column(attribute.name, _MONEY, attribute.nullable, attribute.base)
    if attribute.listed:
        return Column(
            attribute.name, TEXTS, attribute.nullable, "" if attribute.base == TEXTS else attribute.resolved
        )
    if attribute.base in IMAGE_TYPES:
        return Column(attribute.name, attribute.resolved, attribute.nullable)
    return Column(attribute.name, "text", attribute.nullable, attribute.resolved)


def problems(
    connection: Connection,
    attributes: Sequence[Attribute],
    key: Sequence[str],
    configured: settings.SourceTable,
) -> Iterator[str]:
    """What stands against capturing these columns as configured, a sentence each."""
    yield from _name_problems([each for each in attributes if each.name not in configured.exclude])
    yield from _rule_problems({each.name for each in attributes}, key, configured)
    yield from _merchant_problems({each.name: each.base for each in attributes}, configured.merchant.column)
    if any(each.base == "money" for each in attributes) and not _money_has_cents(connection):
        yield "has a column of type money in a locale without two decimals: make it numeric, or exclude it"
    for attribute in attributes:
        if attribute.name in key and not attribute.deterministic:
            yield f'key column "{attribute.name}" has a nondeterministic collation: equal keys may differ'
        if attribute.name in key and not attribute.sorted:
            yield (
                f'key column "{attribute.name}" is {attribute.type}, which an extension sorts: make the key one of'
                " PostgreSQL's own types"
            )


def _name_problems(attributes: Sequence[Attribute]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in (attribute.name for attribute in attributes):
        if name == "cdc" or name.startswith("_"):
            yield f'column "{name}": the name "cdc" and a leading "_" belong to the sinks; exclude it'
        if "." in name:
            yield f'column "{name}": search takes a name with a dot for an object; exclude it'
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            yield f'columns "{twin}" and "{name}" are one and the same in the warehouse; exclude one'


def _rule_problems(names: set[str], key: Sequence[str], configured: settings.SourceTable) -> Iterator[str]:
    kept = dict.fromkeys(key, "the primary key")
    for name in filter(None, (configured.merchant.column, configured.merchant.on)):
        kept[name] = "the merchant"
    for name in [*configured.exclude, *configured.columns]:
        if name not in names:
            yield f'column "{name}" is excluded or rewritten and does not exist'
        elif name in kept:
            yield f'column "{name}" holds {kept[name]} and cannot be excluded or rewritten'
        elif name in configured.exclude and name in configured.columns:
            yield f'column "{name}" is both excluded and rewritten'


def _merchant_problems(bases: dict[str, str], column: str | None) -> Iterator[str]:
    if column is None:
        return
    if column not in bases:
        yield f'merchant column "{column}" does not exist'
    elif bases[column] not in _MERCHANT_TYPES and bases[column] in IMAGE_TYPES:
        yield f'merchant column "{column}" is {bases[column]}; merchants are integers, text or uuid'


def _money_has_cents(connection: Connection) -> bool:
    """Money has as many decimals as the database's locale says; ours reads it with two."""
    with connection.transaction():
        connection.execute(
            "SELECT set_config('lc_monetary', reset_val, true) FROM pg_settings WHERE name = 'lc_monetary'"
        )
        row = connection.execute("SELECT scale((1::numeric::money)::numeric) = 2").fetchone()
    return row is not None and bool(row[0])
