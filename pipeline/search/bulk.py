"""One bulk request, and the verdict on each of its documents."""

from __future__ import annotations

from elasticsearch import Elasticsearch

from pipeline.errors import SinkUnavailableError
from pipeline.search.client import translated
from pipeline.search.outcomes import Verdict, verdict

# Statuses are asked for at once, not after an error: 28 bytes a document, 0.3 µs; a second request would cost far more,
# and in a replay every bulk has errors (409).
_ANSWER = "items.*.status,items.*.error.type,items.*.error.reason"
# require_alias: or a missing alias would become an index without a mapping.
_PARAMETERS = {"require_alias": "true", "include_source_on_error": "false", "filter_path": _ANSWER}
_HEADERS = {"accept": "application/json", "content-type": "application/x-ndjson"}


def post(client: Elasticsearch, body: bytes, documents: int) -> list[Verdict]:
    """Send a body of so many documents; SinkUnavailableError when they are not answered one by one."""
    with translated("writing"):
        answer = client.perform_request(
            "POST", "/_bulk", params=_PARAMETERS, headers=_HEADERS, body=body
        ).body
    items = answer.get("items", [])
    if len(items) != documents:
        raise SinkUnavailableError(
            f"Elasticsearch, writing: answered for {len(items)} of {documents} documents"
        )
    return [verdict(item) for item in items]
