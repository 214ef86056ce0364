"""Tables whose rows belong to the merchant of another table's row: what must hold for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.capture.session import Connection
from pipeline.domain.table import Parent, Table

# One row: the foreign key from a table's column to the whole primary key of another, if any; whether an index helps; and
# the tables whose rows may not be locked.
_QUERY = """
SELECT f.condeferrable, EXISTS (
         SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indisvalid
           AND i.indpred IS NULL),
       (SELECT string_agg(place, ' and ') FROM unnest(ARRAY[%(parent)s, %(child)s]) place
          WHERE NOT has_any_column_privilege(place, 'UPDATE'))
FROM pg_attribute a
LEFT JOIN pg_constraint f ON f.conrelid = a.attrelid AND f.contype = 'f' AND f.conkey = ARRAY[a.attnum]
  AND f.confrelid = to_regclass(%(parent)s) AND f.convalidated
  AND f.confkey = (SELECT conkey FROM pg_constraint WHERE conrelid = f.confrelid AND contype = 'p')
WHERE a.attrelid = to_regclass(%(child)s) AND a.attname = %(on)s AND NOT a.attisdropped
"""


def resolve(
    child: Table, parent: str, on: str, found: Mapping[str, Table]
) -> tuple[Parent | None, list[str]]:
    """Where the rows of `child` find their merchant; None and the reasons when that cannot be."""
    table = found.get(parent)
    if table is None:
        return None, [f'its parent "{parent}" is not captured in this source']
    if table.merchant_column is None:
        return None, [f'the merchant of its parent "{parent}" is no column: there are no chains']
    if len(table.key) != 1:
        return None, [f'its parent "{parent}" has a primary key of several columns']
    if all(column.name != table.merchant_column for column in table.columns):
        return None, []  # told of the parent itself
    return Parent(parent, on, table.column(table.key[0]), table.column(table.merchant_column)), []


def problems(connection: Connection, child: Table, parent: Parent) -> Iterator[str]:
    """What stands against following the column to the parent, a sentence each."""
    names = {name: _quoted(name) for name in (child.name, parent.table)}
    row = connection.execute(
        _QUERY, {"child": names[child.name], "parent": names[parent.table], "on": parent.on}
    ).fetchone()
    if row is None:
        yield f'column "{parent.on}" does not exist'
        return
    deferrable, indexed, locked = row
    if deferrable is None:
        yield f'column "{parent.on}" has no foreign key to the primary key of {parent.table}; add one'
    if deferrable:
        yield f'the foreign key of "{parent.on}" is deferrable: a row could come before its parent'
    if not indexed:
        yield (
            f'column "{parent.on}" has no index: a change of the parent\'s merchant would read the whole table; run:'
            f' CREATE INDEX CONCURRENTLY ON {names[child.name]} ("{parent.on}")'
        )
    if locked:
        yield f"role pipeline needs UPDATE on {locked}, to lock rows whose merchant is looked up; GRANT it"
    if child.strict or child.by_statement:
        yield "takes its merchant from a parent: then it can have no other AFTER triggers, nor capture by statement"


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split(".", 1))
