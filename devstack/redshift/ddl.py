"""CREATE TABLE and ALTER TABLE."""

from __future__ import annotations

from dataclasses import dataclass, field

from devstack.redshift.errors import SqlError, not_covered, syntax_error, unsupported
from devstack.redshift.expressions import rewrite
from devstack.redshift.plans import Forward, Plan
from devstack.redshift.schemas import create_schema, create_view
from devstack.redshift.tokens import Reader, quote
from devstack.redshift.types import ColumnType, read_type

_ENCODINGS = frozenset(
    [
        "RAW",
        "AZ64",
        "BYTEDICT",
        "DELTA",
        "DELTA32K",
        "LZO",
        "MOSTLY8",
        "MOSTLY16",
        "MOSTLY32",
        "RUNLENGTH",
        "TEXT255",
        "TEXT32K",
        "ZSTD",
    ]
)
_AZ64 = frozenset(["smallint", "integer", "bigint", "numeric", "date", "timestamp", "timestamptz", "time"])
_NO_KEYS = frozenset(("super", "varbyte"))
_SYSTEM_COLUMNS = frozenset(
    ["oid", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid", "deletexid", "insertxid"]
)
_AFTER_DEFAULT = frozenset(
    [
        "NOT",
        "NULL",
        "ENCODE",
        "DISTKEY",
        "SORTKEY",
        "PRIMARY",
        "UNIQUE",
        "REFERENCES",
        "COLLATE",
        "IDENTITY",
        "GENERATED",
    ]
)
_CONSTRAINTS = ("PRIMARY", "UNIQUE", "FOREIGN", "CONSTRAINT")
_MAX_SORT_COLUMNS = 400


@dataclass(slots=True)
class _Column:
    name: str
    type: ColumnType
    not_null: bool = False
    default: str | None = None
    distkey: bool = False
    sortkey: bool = False

    def sql(self) -> str:
        name = quote(self.name)
        limit = f" CHECK (octet_length({name}) <= {self.type.max_bytes})" if self.type.max_bytes else ""
        default = f" DEFAULT {self.default}" if self.default is not None else ""
        return f"{name} {self.type.postgres}{limit}{default}{' NOT NULL' if self.not_null else ''}"


@dataclass(slots=True)
class _Table:
    columns: dict[str, _Column] = field(default_factory=dict)
    like: list[str] = field(default_factory=list)
    primary_key: list[str] = field(default_factory=list)

    def column(self, name: str) -> _Column | None:
        """The column, or None when it may come from LIKE."""
        if name not in self.columns and not self.like:
            raise SqlError(f'column "{name}" named in key does not exist', "42703")
        return self.columns.get(name)


def create(reader: Reader) -> Plan:
    """CREATE …, cursor behind that word."""
    if reader.accept("SCHEMA"):
        return create_schema(reader)
    if reader.peek() == "VIEW" or reader.peek(2) == "VIEW":
        return create_view(reader)
    temporary = reader.accept("TEMP") or reader.accept("TEMPORARY") or reader.accept("LOCAL", "TEMP")
    if not reader.accept("TABLE"):
        raise unsupported(f"SQL command CREATE {reader.peek()}")
    return _create_table(reader, temporary)


def _create_table(reader: Reader, temporary: bool) -> Plan:
    guard = "IF NOT EXISTS " if reader.accept("IF", "NOT", "EXISTS") else ""
    name = reader.name()
    if temporary and len(name) > 1:
        raise SqlError("cannot create temporary relation in non-temporary schema", "42P16")
    if reader.peek() != "(":
        raise not_covered("CREATE TABLE … AS")
    start, end = reader.group()
    behind, table = reader.at, _Table()
    for first, last in reader.split(start, end):
        reader.at = first
        _table_element(reader, table, last)
    reader.at = behind
    _attributes(reader, table)
    for key in table.primary_key:
        if column := table.column(key):
            column.not_null = True
    body = ", ".join([*table.like, *(column.sql() for column in table.columns.values())])
    kind = "TEMP TABLE" if temporary else "TABLE"
    return Forward("CREATE TABLE", f"CREATE {kind} {guard}{quote(*name)} ({body})")


def _table_element(reader: Reader, table: _Table, end: int) -> None:
    if reader.accept("LIKE"):
        _like(reader, table)
    elif reader.peek() in _CONSTRAINTS:
        _table_constraint(reader, table)
    elif reader.peek() in ("CHECK", "EXCLUDE") and reader.peek(1) in ("(", "USING"):
        raise unsupported(f"{reader.peek()} constraint")
    else:
        column = read_column(reader, end, table.primary_key)
        if column.name in table.columns:
            raise SqlError(f'column "{column.name}" specified more than once', "42701")
        table.columns[column.name] = column
    if reader.at != end:
        raise reader.unexpected()


def _like(reader: Reader, table: _Table) -> None:
    parent = quote(*reader.name())
    defaults = " INCLUDING DEFAULTS" if reader.accept("INCLUDING", "DEFAULTS") else ""
    if not defaults:
        reader.accept("EXCLUDING", "DEFAULTS")
    table.like.append(f"LIKE {parent} INCLUDING CONSTRAINTS{defaults}")  # constraints: the byte limits


def _table_constraint(reader: Reader, table: _Table) -> None:
    """Informational in Redshift: never enforced, but a primary key makes its columns NOT NULL."""
    if reader.accept("CONSTRAINT"):
        reader.identifier()
    if reader.accept("PRIMARY", "KEY"):
        table.primary_key += reader.column_list()
    elif reader.accept("UNIQUE"):
        reader.column_list()
    else:
        reader.expect("FOREIGN", "KEY")
        reader.column_list()
        reader.expect("REFERENCES")
        _referenced(reader)


def _referenced(reader: Reader) -> None:
    reader.name()
    if reader.peek() == "(":
        reader.column_list()


def read_column(reader: Reader, end: int, primary_key: list[str]) -> _Column:
    """One column definition; a PRIMARY KEY found on it is added to `primary_key`."""
    name = reader.identifier()
    if name in _SYSTEM_COLUMNS:
        raise SqlError(f'column name "{name}" conflicts with a system column name', "42701")
    column = _Column(name, read_type(reader))
    while reader.at < end:
        _column_attribute(reader, column, end, primary_key)
    _check_keys(column)
    return column


def _column_attribute(reader: Reader, column: _Column, end: int, primary_key: list[str]) -> None:
    if reader.accept("NOT", "NULL"):
        column.not_null = True
    elif reader.accept("PRIMARY", "KEY"):
        primary_key.append(column.name)
    elif reader.accept("ENCODE"):
        _encoding(reader, column.type)
    elif reader.accept("DEFAULT"):
        column.default = _default(reader, end)
    elif reader.accept("DISTKEY"):
        column.distkey = True
    elif reader.accept("SORTKEY"):
        column.sortkey = True
    elif reader.accept("REFERENCES"):
        _referenced(reader)
    elif reader.peek() in ("IDENTITY", "GENERATED", "COLLATE"):
        raise not_covered(f"column attribute {reader.peek()}")
    elif not reader.accept("NULL") and not reader.accept("UNIQUE"):
        raise reader.unexpected()


def _encoding(reader: Reader, kind: ColumnType) -> None:
    word = reader.next().word
    if word not in _ENCODINGS:
        raise SqlError(f'unrecognized encoding "{word.lower()}"', "42704")
    if word == "AZ64" and kind.redshift not in _AZ64:
        raise SqlError(f"invalid encoding type specified for column of type {kind.redshift}", "0A000")


def _default(reader: Reader, end: int) -> str:
    start = reader.at
    reader.at += 1
    while reader.at < end and reader.peek() not in _AFTER_DEFAULT:
        reader.at += 1
    return rewrite(reader, start, reader.at)


def _check_keys(column: _Column) -> None:
    if (column.distkey or column.sortkey) and column.type.redshift in _NO_KEYS:
        raise SqlError(f"column of type {column.type.redshift} cannot be a sort or distribution key", "0A000")


def _attributes(reader: Reader, table: _Table) -> None:
    """DISTSTYLE, DISTKEY, SORTKEY, ENCODE AUTO: checked, then without effect."""
    style = ""
    distkeys = [column.name for column in table.columns.values() if column.distkey]
    while not reader.done:
        if reader.accept("DISTSTYLE"):
            style = reader.next().word
        elif reader.accept("DISTKEY"):
            distkeys += _key_columns(reader, table, limit=1)
        elif reader.accept("SORTKEY", "AUTO") or reader.accept("ENCODE", "AUTO"):
            continue
        else:
            reader.accept("COMPOUND") or reader.accept("INTERLEAVED")
            reader.expect("SORTKEY")
            _key_columns(reader, table, limit=_MAX_SORT_COLUMNS)
    _check_distribution(style, len(distkeys))


def _check_distribution(style: str, distkeys: int) -> None:
    if style not in ("", "AUTO", "EVEN", "KEY", "ALL"):
        raise syntax_error(style)
    if distkeys > 1:
        raise SqlError("Cannot specify more than one DISTKEY", "42P16")
    if (style == "KEY") != bool(distkeys) and (style or not distkeys) and style != "":
        raise SqlError(f"DISTSTYLE {style} and DISTKEY do not agree", "42P16")


def _key_columns(reader: Reader, table: _Table, limit: int) -> list[str]:
    names = reader.column_list()
    if len(names) > limit:
        raise SqlError(f"a key takes at most {limit} columns", "54011")
    for name in names:
        column = table.column(name)
        if column and column.type.redshift in _NO_KEYS:
            raise SqlError(
                f"column of type {column.type.redshift} cannot be a sort or distribution key", "0A000"
            )
    return names


def alter(reader: Reader) -> Plan:
    """ALTER TABLE t ADD [COLUMN] c type …: one column in each statement."""
    reader.expect("TABLE")
    table = reader.name()
    if not reader.accept("ADD"):
        raise not_covered(f"ALTER TABLE … {reader.peek()}")
    reader.accept("COLUMN")
    if reader.peek() == "IF" or len(reader.split(reader.at, len(reader.tokens))) > 1:
        raise syntax_error("IF" if reader.peek() == "IF" else ",")
    if reader.peek() in _CONSTRAINTS:
        raise not_covered("ALTER TABLE … ADD constraint")
    column = read_column(reader, len(reader.tokens), [])
    if column.distkey or column.sortkey:
        raise unsupported("a key on an added column")
    if column.not_null and column.default in (None, "NULL"):
        message = "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression"
        raise SqlError(message, "0A000")
    return Forward("ALTER TABLE", f"ALTER TABLE {quote(*table)} ADD COLUMN {column.sql()}")
