"""INSERT, UPDATE, DELETE and MERGE in Redshift's grammar."""

from __future__ import annotations

from devstack.redshift.errors import SqlError, not_covered, syntax_error
from devstack.redshift.expressions import rewrite
from devstack.redshift.plans import Forward, Plan
from devstack.redshift.tokens import Name, Reader, quote


def insert(reader: Reader) -> Plan:
    """INSERT INTO t [(columns)] VALUES … | SELECT …, cursor behind INSERT."""
    reader.expect("INTO")
    table = reader.name()
    if reader.peek() == "(" and reader.peek(1) not in ("SELECT", "WITH"):
        reader.column_list()
    if reader.peek() not in ("VALUES", "SELECT", "WITH", "(", "DEFAULT"):
        raise reader.unexpected()
    return _forward(reader, "INSERT", table, shared=True)


def update(reader: Reader) -> Plan:
    """UPDATE t [alias] SET …, cursor behind UPDATE."""
    table = reader.name()
    if reader.peek() != "SET":
        reader.accept("AS")
        reader.identifier()
    if reader.peek() != "SET":
        raise reader.unexpected()
    return _forward(reader, "UPDATE", table)


def delete(reader: Reader) -> Plan:
    """DELETE FROM t [USING …] [WHERE …]: the table takes no alias."""
    reader.expect("FROM")
    table = reader.name()
    if reader.peek() not in ("", "USING", "WHERE"):
        raise reader.unexpected()
    return _forward(reader, "DELETE", table)


def merge(reader: Reader) -> Plan:
    """MERGE with one unconditional action per branch, both branches given, in this order."""
    reader.expect("INTO")
    target = reader.name()
    reader.expect("USING")
    if reader.peek() == "(":
        raise SqlError("MERGE source must be a table, not a subquery", "0A000")
    source = reader.name()
    if reader.accept("AS") or reader.peek() != "ON":
        reader.identifier()
    if source == target:
        raise SqlError("Source and target tables of MERGE must differ", "0A000")
    reader.expect("ON")
    _skip_to_branch(reader)
    if reader.peek() == "REMOVE":
        raise not_covered("MERGE … REMOVE DUPLICATES")
    reader.expect("WHEN", "MATCHED", "THEN")
    if not reader.accept("DELETE"):
        reader.expect("UPDATE", "SET")
        _skip_to_branch(reader)
    reader.expect("WHEN", "NOT", "MATCHED", "THEN", "INSERT")
    if reader.peek() == "(":
        reader.column_list()
    reader.expect("VALUES")
    reader.group()
    reader.end()
    return _forward(reader, "MERGE", target)


def lock(reader: Reader) -> Plan:
    """LOCK [TABLE] t [, …]: always exclusive, Redshift has no modes."""
    reader.accept("TABLE")
    names = reader.names()
    reader.end()
    return Forward("LOCK", f"LOCK TABLE {', '.join(quote(*name) for name in names)}")


def select(reader: Reader) -> Plan:
    """SELECT … or WITH … SELECT."""
    index = 0
    while reader.word(index) not in ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", ""):
        index = reader.closing.get(index, index) + 1
    if reader.word(index) not in ("SELECT", ""):
        raise syntax_error(reader.word(index))
    return Forward("SELECT", rewrite(reader, 0, len(reader.tokens)))


def _forward(reader: Reader, verb: str, table: Name, *, shared: bool = False) -> Plan:
    return Forward(verb, rewrite(reader, 0, len(reader.tokens)), (table,), shared)


def _skip_to_branch(reader: Reader) -> None:
    """To the next WHEN or REMOVE that is in neither parentheses nor CASE … END."""
    depth = 0
    while not reader.done and (depth or reader.peek() not in ("WHEN", "REMOVE")):
        depth += (reader.peek() == "CASE") - (reader.peek() == "END")
        reader.at = reader.closing.get(reader.at, reader.at) + 1
