"""What a client is told: errors with Redshift's codes and words."""

from __future__ import annotations


class SqlError(Exception):
    """An error answer to the client: message, SQLSTATE and, where Redshift gives one, a detail."""

    def __init__(self, message: str, code: str = "42601", detail: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.detail = message, code, detail


class ConnectionCut(Exception):
    """An armed fault: drop the client's connection without an answer."""


def not_covered(what: str) -> SqlError:
    """Redshift knows it, or may; the stand-in does not imitate it."""
    return SqlError(f"not covered by the stand-in: {what}", "0A000")


def unsupported(what: str) -> SqlError:
    """Redshift itself refuses it."""
    return SqlError(f"{what} is not supported", "0A000")


def syntax_error(near: str) -> SqlError:
    """The parser's complaint, with the token it stopped at."""
    return SqlError(f'syntax error at or near "{near}"' if near else "syntax error at end of input")


def from_postgres(fields: dict[str, str]) -> SqlError:
    """PostgreSQL's error fields as Redshift would put them."""
    code, message, detail = fields.get("C", "XX000"), fields.get("M", ""), fields.get("D")
    if code == "40001":
        cycle = "transactions forming the cycle are: 1, 2 (pid:0)"
        return SqlError("1023", "XX000", f"Serializable isolation violation on table - 100000, {cycle}")
    if code == "23514":  # only the byte limits of VARCHAR and VARBYTE are CHECK constraints here
        return _too_long()
    if code == "22001":
        return _too_long()
    if code == "21000" and "MERGE" in message:
        return SqlError("Found multiple matches to update the same tuple.", "XX000")
    if code == "23502":
        return SqlError(f"Cannot insert a NULL value into column {fields.get('c', '')}", code)
    return SqlError(message, code, detail)


def _too_long() -> SqlError:
    detail = (
        "error:  Value too long for character type\n  code:      8001\n  context:   Value too long for type"
    )
    return SqlError("Value too long for character type", "22001", detail)
