"""The `.env` file: one marked block of it is ours, every other line is the user's and stays."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

BEGIN = "# >>> written by `python -m devstack up`; put your own lines above or below"
END = "# <<< devstack"


def read(path: Path) -> dict[str, str]:
    """Every `NAME=value` line, the last one of a name wins; empty when there is no file."""
    if not path.exists():
        return {}
    lines = (line.strip().removeprefix("export ") for line in path.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, value in pairs}


def own_lines(text: str) -> list[str]:
    """The lines outside our block."""
    kept, inside = [], False
    for line in text.splitlines():
        if line == BEGIN:
            inside = True
        if not inside:
            kept.append(line)
        if line == END:
            inside = False
    return kept


def write(path: Path, values: Mapping[str, str]) -> None:
    """Replace our block in one step; the file is readable by its owner only, passwords are in it."""
    kept = own_lines(path.read_text()) if path.exists() else []
    block = [BEGIN, *(f"{name}={value}" for name, value in values.items()), END]
    write_private(path, "\n".join([*kept, *block]) + "\n")


def remove(path: Path) -> None:
    """Take our block out; a file that held nothing else is deleted."""
    if not path.exists():
        return
    kept = own_lines(path.read_text())
    if any(line.strip() for line in kept):
        write_private(path, "\n".join(kept) + "\n")
    else:
        path.unlink()


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that a reader, or a crash, sees the old text or the new and nothing between."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
