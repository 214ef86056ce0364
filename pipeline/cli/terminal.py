"""Words of others on a person's terminal: ids, keys and reasons are printed, never obeyed."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta

from rich.text import Text

# What a terminal takes for an order: CSI, then OSC and the other strings up to their end, then two-character sequences.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]).*?(?:\x07|\x1b\\|\x9c|$)|\x1b.?",
    re.DOTALL,
)


def plain(value: object) -> str:
    """Text without escape sequences, control characters, and characters that turn the direction of others around."""
    text = _SEQUENCES.sub("", str(value))
    return "".join(" " if letter in "\t\r\n" else letter for letter in text if _shows(letter))


def _shows(letter: str) -> bool:
    return letter in "\t\r\n" or not unicodedata.category(letter).startswith("C")


def cell(value: object, style: str = "") -> Text:
    """A table's cell of somebody's words: `[red]` in them is no colour."""
    return Text("" if value is None else plain(value), style=style)


def moment(at: datetime | None) -> str:
    """A time as people write it, in UTC, and as `--to` takes it."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def duration(seconds: float) -> str:
    """How long: two units at most."""
    if seconds < 120:
        return f"{max(0.0, seconds):.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 72 else f"{hours // 24} d {hours % 24} h"


def since(at: datetime) -> str:
    """How long ago that was."""
    return duration((datetime.now(UTC) - at) / timedelta(seconds=1))
