"""Why something failed, in somebody's words."""

from __future__ import annotations


def storable(reason: str) -> str:
    """The words as every store takes them: without NUL, which PostgreSQL refuses, and what UTF-8 cannot say."""
    return reason.encode(errors="replace").decode().replace("\0", "?")
