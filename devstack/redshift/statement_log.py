"""DIR/statements.log: what was executed, one JSON object per line, for assertions in tests.

Each line has `session` (a number per connection), `verb` (COPY, MERGE, COMMIT …), `sql` as the client
sent it (bound values are not in it, nor anything COPY reads) and `error`, an SQLSTATE or null. COPY also
has `rows`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

_MAX_SQL = 4000


class Executed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One executed statement."""

    session: int
    verb: str
    sql: str
    error: str | None = None
    rows: int | None = None


class StatementLog:
    """Appends to the log; one write per line, so that readers see whole lines."""

    def __init__(self, state: Path) -> None:
        self._file = (state / "statements.log").open("ab", buffering=0)

    def add(self, session: int, verb: str, sql: str, error: str | None, rows: int | None = None) -> None:
        """Append one executed statement."""
        line = Executed(session, verb, sql[:_MAX_SQL], error, rows)
        self._file.write(msgspec.json.encode(line) + b"\n")


def read_log(state_dir: str | Path) -> list[Executed]:
    """Everything executed so far."""
    path = Path(state_dir) / "statements.log"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [msgspec.json.decode(line, type=Executed) for line in lines]
