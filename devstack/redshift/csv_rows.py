"""CSV as COPY reads it, in chunks of rows with the line each row begins on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

ROWS_PER_CHUNK = 1000
_LARGEST_FIELD = 64 << 20

csv.field_size_limit(_LARGEST_FIELD)


class BadQuotes(Exception):
    """A quote where RFC 4180 allows none."""

    def __init__(self, line: int) -> None:
        super().__init__(f"line {line}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows, and the line the first of them begins on (from 1)."""

    first_line: int
    rows: list[list[str]]

    def line(self, index: int) -> int:
        """The line on which row `index` begins; a quoted field may span lines."""
        before = self.rows[:index]
        return self.first_line + len(before) + sum(field.count("\n") for row in before for field in row)


def chunks(content: BinaryIO) -> Iterator[Chunk]:
    """Read the file; bytes that are not UTF-8 stay visible as surrogates. Raises BadQuotes."""
    text = io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            rows = list(islice(reader, ROWS_PER_CHUNK))
        except csv.Error as error:
            raise BadQuotes(reader.line_num) from error
        if not rows:
            return
        yield Chunk(first_line, rows)
