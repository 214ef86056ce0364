"""Where a setting stands in a TOML file: parsers give values without lines, people need lines."""

from __future__ import annotations

import re


def line_of(text: str, location: list[str]) -> int:
    """The line of a setting, or of the innermost table header around it: TOML parsers do not tell."""
    best, best_depth, header = 1, 0, []
    for number, line in enumerate(text.splitlines(), 1):
        names = _names_of(line)
        if names is None:
            continue
        if line.lstrip().startswith("["):
            header, full = names, names
        else:
            full = header + names
        depth = len(full)
        if full == location[:depth] and depth > best_depth:
            best, best_depth = number, depth
    return best


_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_ASSIGNMENT = re.compile(rf"\s*(?:\[\s*)?({_PART}(?:\s*\.\s*{_PART})*)\s*(?:\]|=)")


def _names_of(line: str) -> list[str] | None:
    match = _ASSIGNMENT.match(line)
    if match is None:
        return None
    return [part.strip("\"'") for part in re.findall(_PART, match[1])]
