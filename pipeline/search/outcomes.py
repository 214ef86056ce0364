"""What Elasticsearch says about each document of a bulk, and whose fault that is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["applied", "stale", "rejected", "unavailable", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One document's outcome. ``reason`` never repeats a value of the row.

    ``rejected``: this document can never be accepted. ``unavailable``: nobody's fault. ``failed``: an error we do not
    know; its lane waits for a person, the others go on.
    """

    kind: Kind
    reason: str = ""


APPLIED, STALE = Verdict("applied"), Verdict("stale")

_OF_THE_DOCUMENT = {"document_parsing_exception", "mapper_parsing_exception"}
_ILLEGAL_DOCUMENT = ("Document contains at least one immense term", "Malformed content")
_OF_THE_INDEX = {"index_closed_exception", "cluster_block_exception", "index_not_found_exception"}
_UNPARSED = re.compile(r"(?:\[\d+:\d+\] )?failed to parse field \[([^\]]{1,100})\] of type \[(\w+)\]")
_IMMENSE = re.compile(r'Document contains at least one immense term in field="([^"]{1,100})"')


def verdict(item: Mapping[str, Any]) -> Verdict:
    """The verdict on one item of a bulk's answer, ``{"index": {"status": …, "error": {"type", "reason"}}}``."""
    result = next(iter(item.values()))
    status = result["status"]
    if status < 300:
        return APPLIED
    if status == 409:
        return STALE
    error = result.get("error", {})
    kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
    return Verdict(_kind(status, kind, reason), _described(status, kind, reason))


def _kind(status: int, kind: str, reason: str) -> Kind:
    if status in (401, 403, 404, 429) or status >= 500 or kind in _OF_THE_INDEX:
        return "unavailable"
    if kind in _OF_THE_DOCUMENT:
        return "rejected"
    if kind == "illegal_argument_exception" and reason.startswith("no write index"):
        return "unavailable"
    if kind == "illegal_argument_exception" and reason.startswith(_ILLEGAL_DOCUMENT):
        return "rejected"
    return "failed"


def _described(status: int, kind: str, reason: str) -> str:
    # The server's own sentence goes on with the value, so only the field and its type are taken off its beginning.
    if unparsed := _UNPARSED.match(reason):
        return f"{status} {kind}: field {unparsed[1]} of type {unparsed[2]}"
    if immense := _IMMENSE.match(reason):
        return f"{status} {kind}: field {immense[1]} is too long"
    return f"{status} {kind}"
