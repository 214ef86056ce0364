"""What benches share on the terminal: one line that says what happens now, tables, the file of figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

_TEXTS = ("", "figure", "process", "part", "floor of", "writer", "relay")


class Say:
    """Shows what happens now, how far it is, of how many."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def __call__(self, what: str, done: int, of: int) -> None:
        """`of` is 0 when nobody knows."""
        self._progress.update(self._task, description=what, completed=done, total=of or None)


@contextmanager
def progress() -> Iterator[Say]:
    """The line, on standard error, while the block runs."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        yield Say(shown)


def console() -> Console:
    """Where results go; wide enough for a table when nobody watches."""
    return Console(width=None if sys.stdout.isatty() else 140)


def write(file: Path | None, figures: Mapping[str, float], beside: Sequence[str], to: Console) -> None:
    """The JSON, if it was asked for; nothing measured beside other work is written."""
    if file is not None and beside:
        to.print(f"{file} is not written.")
    elif file is not None:
        file.write_text(json.dumps(figures, indent=2) + "\n")


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median, lowest and highest: ``12 (11 to 14)``; one value stands alone."""
    shown = format(median(values), form)
    return (
        shown if len(values) == 1 else f"{shown} ({format(min(values), form)} to {format(max(values), form)})"
    )


def grid(title: str, *columns: str) -> Table:
    """A table without lines; figures stand to the right."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in _TEXTS else "right")
    return table


def distrust(beside: Sequence[str], to: Console) -> None:
    """Say so when something ran beside the bench."""
    if beside:
        to.print(f"[red]Measured beside {', '.join(beside)}: these figures mean nothing.")
