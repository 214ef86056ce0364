from typing import Any

import pytest

from pipeline.search.outcomes import verdict

PARSING = (
    "[1:6] failed to parse field [quantity] of type [long] in document with id '20'."
    " Preview of field's value: 'failed to parse field [private] of type [secret]'"
)
IMMENSE = (
    'Document contains at least one immense term in field="note" (whose UTF8 encoding is longer than the max length'
    " 32766), all of which were skipped. The prefix of the first immense term is: '[112, 114, 105]...'"
)


def item(status: int, kind: str = "", reason: str = "") -> dict[str, Any]:
    error = {"error": {"type": kind, "reason": reason}} if kind else {}
    return {"index": {"status": status, **error}}


@pytest.mark.parametrize(
    ("said", "kind", "reason"),
    [
        (item(201), "applied", ""),
        (item(200), "applied", ""),
        (item(409, "version_conflict_engine_exception", "[9]: version conflict"), "stale", ""),
        (
            item(400, "document_parsing_exception", PARSING),
            "rejected",
            "400 document_parsing_exception: field quantity of type long",
        ),
        (
            item(400, "illegal_argument_exception", IMMENSE),
            "rejected",
            "400 illegal_argument_exception: field note is too long",
        ),
        (
            item(400, "document_parsing_exception", "[1:2] failed to parse: Duplicate field 'private'"),
            "rejected",
            "400 document_parsing_exception",
        ),
        (item(429, "es_rejected_execution_exception"), "unavailable", "429 es_rejected_execution_exception"),
        (item(429, "circuit_breaking_exception"), "unavailable", "429 circuit_breaking_exception"),
        (item(503, "unavailable_shards_exception"), "unavailable", "503 unavailable_shards_exception"),
        (item(403, "cluster_block_exception"), "unavailable", "403 cluster_block_exception"),
        (item(404, "index_not_found_exception"), "unavailable", "404 index_not_found_exception"),
        (item(400, "index_closed_exception"), "unavailable", "400 index_closed_exception"),
        (
            item(400, "illegal_argument_exception", "no write index is defined for alias [payments-payment-write]"),
            "unavailable",
            "400 illegal_argument_exception",
        ),
        (item(400, "illegal_argument_exception", "something new"), "failed", "400 illegal_argument_exception"),
        (item(400, "routing_missing_exception"), "failed", "400 routing_missing_exception"),
    ],
)  # fmt: skip
def test_each_answer_is_somebodys_fault_or_nobodys(said: dict[str, Any], kind: str, reason: str) -> None:
    found = verdict(said)
    assert (found.kind, found.reason) == (kind, reason)
