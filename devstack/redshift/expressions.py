"""Queries and expressions: checked against what Redshift has, reworded where PostgreSQL says it otherwise.

Functions are an allow-list: one that is not named here is refused, whether or not PostgreSQL has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from devstack.redshift.errors import SqlError, not_covered, syntax_error, unsupported
from devstack.redshift.tokens import Reader, Token, name_of, quote
from devstack.redshift.types import read_type

_FUNCTIONS = frozenset(
    [
        "COUNT",
        "SUM",
        "MIN",
        "MAX",
        "AVG",
        "STDDEV",
        "STDDEV_SAMP",
        "STDDEV_POP",
        "VARIANCE",
        "VAR_SAMP",
        "VAR_POP",
        "BOOL_AND",
        "BOOL_OR",
        "ROW_NUMBER",
        "RANK",
        "DENSE_RANK",
        "PERCENT_RANK",
        "CUME_DIST",
        "NTILE",
        "LAG",
        "LEAD",
        "FIRST_VALUE",
        "LAST_VALUE",
        "NTH_VALUE",
        "COALESCE",
        "NVL",
        "NULLIF",
        "GREATEST",
        "LEAST",
        "CAST",
        "LEN",
        "LENGTH",
        "OCTET_LENGTH",
        "LOWER",
        "UPPER",
        "TRIM",
        "BTRIM",
        "LTRIM",
        "RTRIM",
        "SUBSTRING",
        "SUBSTR",
        "LEFT",
        "RIGHT",
        "REPLACE",
        "POSITION",
        "STRPOS",
        "SPLIT_PART",
        "CONCAT",
        "REVERSE",
        "LPAD",
        "RPAD",
        "CHR",
        "ASCII",
        "REPEAT",
        "TRANSLATE",
        "REGEXP_REPLACE",
        "MD5",
        "STRTOL",
        "TO_HEX",
        "ABS",
        "ROUND",
        "FLOOR",
        "CEIL",
        "CEILING",
        "TRUNC",
        "MOD",
        "POWER",
        "SQRT",
        "LN",
        "EXP",
        "SIGN",
        "EXTRACT",
        "DATE_PART",
        "DATE_TRUNC",
        "GETDATE",
        "TO_CHAR",
        "TO_DATE",
        "TO_TIMESTAMP",
        "TO_NUMBER",
        "JSON_PARSE",
        "JSON_SERIALIZE",
        "PG_LAST_COPY_COUNT",
        "PG_LAST_COPY_ID",
        "PG_BACKEND_PID",
        "CURRENT_DATABASE",
        "VERSION",
    ]
)
# Words that may stand before "(" without calling anything.
_KEYWORDS = frozenset(
    [
        "IN",
        "EXISTS",
        "VALUES",
        "AND",
        "OR",
        "NOT",
        "ON",
        "USING",
        "AS",
        "WHERE",
        "FROM",
        "SELECT",
        "BY",
        "OVER",
        "THEN",
        "WHEN",
        "ELSE",
        "CASE",
        "UNION",
        "ALL",
        "EXCEPT",
        "INTERSECT",
        "HAVING",
        "LIKE",
        "ILIKE",
        "BETWEEN",
        "SET",
        "LIMIT",
        "OFFSET",
        "INSERT",
        "DISTINCT",
        "JOIN",
        "DEFAULT",
    ]
)
_REPLACED = {"NVL": "COALESCE", "LEN": "LENGTH"}
_NEEDS_NO_FRAME = frozenset(
    ["ROW_NUMBER", "RANK", "DENSE_RANK", "PERCENT_RANK", "CUME_DIST", "NTILE", "LAG", "LEAD"]
)
_COMPARISONS = frozenset(("=", "<>", "!=", "<", ">", "<=", ">="))
_CHANGES = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE"))
_DENIED: dict[tuple[str, ...], SqlError] = {
    ("ON", "CONFLICT"): syntax_error("CONFLICT"),
    ("->",): syntax_error("->"),
    ("RETURNING",): syntax_error("RETURNING"),
    ("DISTINCT", "ON"): unsupported("SELECT DISTINCT ON"),
    ("FOR", "UPDATE"): unsupported("SELECT FOR UPDATE"),
    ("FOR", "SHARE"): unsupported("SELECT FOR SHARE"),
    ("FOR", "NO"): unsupported("SELECT FOR UPDATE"),
    ("LATERAL",): unsupported("LATERAL"),
    ("FILTER", "("): unsupported("FILTER on an aggregate"),
    ("DISTINCT", "FROM"): unsupported("IS DISTINCT FROM"),
    ("FROM", "(", "VALUES"): unsupported("VALUES as a table"),
    ("JOIN", "(", "VALUES"): unsupported("VALUES as a table"),
    ("AS", "MATERIALIZED"): syntax_error("MATERIALIZED"),
    ("NOT", "MATERIALIZED"): syntax_error("MATERIALIZED"),
    ("FETCH", "FIRST"): syntax_error("FETCH"),
    ("FETCH", "NEXT"): syntax_error("FETCH"),
    ("TABLESAMPLE",): syntax_error("TABLESAMPLE"),
    ("ROW", "("): unsupported("a row constructor"),
    ("WITH", "ORDINALITY"): syntax_error("ORDINALITY"),
    ("WITH", "NO", "SCHEMA"): not_covered("late-binding views"),
    ("CURRENT_TIMESTAMP",): unsupported(
        "CURRENT_TIMESTAMP (a leader-node function; use GETDATE() or SYSDATE)"
    ),
    ("SELECT", "INTO"): not_covered("SELECT INTO"),
    ("QUALIFY",): not_covered("QUALIFY"),
    ("GROUPING",): not_covered("grouping sets"),
    ("ROLLUP",): not_covered("grouping sets"),
    ("CUBE",): not_covered("grouping sets"),
}
_BY_FIRST: dict[str, list[tuple[str, ...]]] = {}
for _words in _DENIED:
    _BY_FIRST.setdefault(_words[0], []).append(_words)


def rewrite(reader: Reader, start: int, end: int) -> str:
    """PostgreSQL's wording of the tokens start … end - 1. Raises SqlError at what Redshift lacks."""
    resume, pieces = reader.at, []
    last = reader.tokens[start].start if start < end else 0
    index = start
    while index < end:
        token = reader.tokens[index]
        _check(reader, index)
        if _is_cast(reader, index):
            reader.at = index + 1
            wording = f"{token.text} {read_type(reader).postgres}"
            following = reader.at
        else:
            wording, following = _reworded(reader, token, index), index + 1
        pieces += [reader.sql[last : token.start], wording]
        index, last = following, reader.tokens[following - 1].end
    reader.at = resume
    return "".join(pieces)


def _reworded(reader: Reader, token: Token, index: int) -> str:
    if token.kind == "quoted":
        return quote(name_of(token))
    if token.kind == "word":
        name_of(token)
    if token.word == "SYSDATE":
        return "pg_catalog.sysdate()"
    if reader.word(index + 1) == "(":
        return _REPLACED.get(token.word, token.text)
    return token.text


def _is_cast(reader: Reader, index: int) -> bool:
    word = reader.word(index)
    return word == "::" or (word == "AS" and _enclosing_call(reader, index) == "CAST")


def _enclosing_call(reader: Reader, index: int) -> str:
    for start, close in reader.closing.items():
        if reader.word(start - 1) == "CAST" and start < index < close and not _nested(reader, start, index):
            return "CAST"
    return ""


def _nested(reader: Reader, outer: int, index: int) -> bool:
    return any(outer < start < index < close for start, close in reader.closing.items())


def _check(reader: Reader, index: int) -> None:
    word = reader.word(index)
    for words in _BY_FIRST.get(word, ()):
        if all(reader.word(index + k) == expected for k, expected in enumerate(words)):
            raise _DENIED[words]
    if word == "(":
        _check_group(reader, index)
    elif word == "OVER":
        _check_window(reader, index)
    elif word == "WINDOW" and reader.word(index + 2) == "AS":
        raise syntax_error("WINDOW")
    elif word == "INTO" and index > 0 and reader.word(index - 1) not in ("INSERT", "MERGE"):
        raise not_covered("SELECT INTO")


def _check_group(reader: Reader, index: int) -> None:
    if reader.word(index + 1) in _CHANGES:
        raise unsupported("a statement that changes data inside WITH")
    before = reader.tokens[index - 1] if index else None
    if before is not None and before.kind == "word" and _calls(reader, index):
        if before.word not in _FUNCTIONS:
            raise SqlError(
                f"function {before.text.lower()}() is not one the stand-in knows in Redshift", "42883"
            )
        if before.word == "CONCAT" and len(reader.split(index + 1, reader.closing[index])) != 2:
            raise SqlError("CONCAT takes two arguments", "42883")
    elif _is_row(reader, index):
        raise unsupported("a row constructor")


def _calls(reader: Reader, index: int) -> bool:
    """Whether the word before the "(" at index is a function and not a keyword, table or common table."""
    if reader.word(index - 1) in _KEYWORDS:
        return False
    if reader.word(reader.closing[index] + 1) == "AS" and reader.word(index - 2) in (
        "WITH",
        ",",
        "RECURSIVE",
    ):
        return False
    at = index - 1
    while reader.word(at - 1) == ".":
        at -= 2
    return reader.word(at - 1) not in ("INTO", "VIEW")


def _is_row(reader: Reader, index: int) -> bool:
    close = reader.closing[index]
    several = len(reader.split(index + 1, close)) > 1
    return several and (reader.word(close + 1) in _COMPARISONS or reader.word(index - 1) in _COMPARISONS)


def _check_window(reader: Reader, index: int) -> None:
    if reader.word(index + 1) != "(":
        raise syntax_error("OVER")
    words = list(_depth_zero(reader, index + 2, reader.closing[index + 1]))
    if "RANGE" in words or "GROUPS" in words:
        raise unsupported("a RANGE or GROUPS frame")
    function = reader.word(reader.opening.get(index - 1, 0) - 1)
    if function not in _NEEDS_NO_FRAME and "ORDER" in words and "ROWS" not in words:
        raise SqlError("Aggregate window functions with an ORDER BY clause require a frame clause", "0A000")


def _depth_zero(reader: Reader, start: int, end: int) -> Iterator[str]:
    index = start
    while index < end:
        yield reader.word(index)
        index = reader.closing.get(index, index) + 1
