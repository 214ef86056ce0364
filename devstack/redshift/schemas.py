"""Schemas, views and DROP."""

from __future__ import annotations

from devstack.redshift.errors import not_covered
from devstack.redshift.expressions import rewrite
from devstack.redshift.plans import Forward, Plan, ReplaceView
from devstack.redshift.tokens import Reader, quote


def create_schema(reader: Reader) -> Plan:
    """CREATE SCHEMA [IF NOT EXISTS] name, cursor behind SCHEMA."""
    guard = "IF NOT EXISTS " if reader.accept("IF", "NOT", "EXISTS") else ""
    name = reader.identifier()
    reader.end()
    return Forward("CREATE SCHEMA", f"CREATE SCHEMA {guard}{quote(name)}")


def create_view(reader: Reader) -> Plan:
    """CREATE [OR REPLACE] VIEW v [(columns)] AS query, cursor behind CREATE."""
    replace = reader.accept("OR", "REPLACE")
    reader.expect("VIEW")
    view = reader.name()
    columns = f" ({', '.join(map(quote, reader.column_list()))})" if reader.peek() == "(" else ""
    reader.expect("AS")
    if reader.peek() not in ("SELECT", "WITH", "("):
        raise reader.unexpected()
    query = rewrite(reader, reader.at, len(reader.tokens))
    if replace:
        return ReplaceView(view, f"CREATE OR REPLACE VIEW {quote(*view)}{columns} AS {query}")
    return Forward("CREATE VIEW", f"CREATE VIEW {quote(*view)}{columns} AS {query}")


def drop(reader: Reader) -> Plan:
    """DROP TABLE | VIEW | SCHEMA, cursor behind DROP."""
    kind = reader.next().word
    if kind not in ("TABLE", "VIEW", "SCHEMA"):
        raise not_covered(f"DROP {kind}")
    guard = "IF EXISTS " if reader.accept("IF", "EXISTS") else ""
    names = ", ".join(quote(*name) for name in reader.names())
    mode = " CASCADE" if reader.accept("CASCADE") else ""
    if not mode:
        reader.accept("RESTRICT")
    reader.end()
    return Forward(f"DROP {kind}", f"DROP {kind} {guard}{names}{mode}")
