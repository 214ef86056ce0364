"""The Elasticsearch client: how it is made, and what its errors mean here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from elastic_transport import JsonSerializer, SerializationError, TransportError
from elasticsearch import ApiError, Elasticsearch, UnsupportedProductError

from pipeline.errors import PermanentError, SinkUnavailableError

_HINT = "see ELASTICSEARCH_URL"
_KIND = re.compile(r"[a-z_]{1,80}")


class _Json(JsonSerializer):
    """JSON by msgspec: a third of the standard library's time on bulk answers."""

    def json_dumps(self, data: Any) -> bytes:
        return msgspec.json.encode(data)

    def json_loads(self, data: bytes) -> Any:
        return msgspec.json.decode(data)


_SERIALIZERS = {mimetype: _Json() for mimetype in ("application/json", "application/vnd.elasticsearch+json")}


def connect(url: str, *, timeout: float = 30.0) -> Elasticsearch:
    """A client for all threads of this process; connects when first used, `timeout` seconds per request.

    It repeats nothing by itself: whether a write is tried again is for the lanes to decide.
    """
    return Elasticsearch(
        url, request_timeout=timeout, max_retries=0, retry_on_timeout=False, serializers=_SERIALIZERS
    )


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn the client's errors into ours. None of them carries a response body, which may hold rows.

    SinkUnavailableError when the cluster does not answer or does not accept; PermanentError when it calls the request
    itself wrong.
    """
    try:
        yield
    except ApiError as error:
        raise _of_status(doing, error.meta.status, str(error.message)) from None
    except (SerializationError, UnsupportedProductError) as error:
        what = f"Elasticsearch, {doing}: something else answers there: {type(error).__name__}"
        raise SinkUnavailableError(what, hint=_HINT) from None
    except TransportError as error:
        what = f"Elasticsearch, {doing}: no answer: {type(error).__name__}"
        raise SinkUnavailableError(what, hint=_HINT) from error


def _of_status(doing: str, status: int, kind: str) -> SinkUnavailableError | PermanentError:
    known = kind if _KIND.fullmatch(kind) else ""
    what = f"Elasticsearch, {doing}: {status} {known}".rstrip()
    if status == 404:
        return SinkUnavailableError(what, hint="run `pipeline migrate`")
    if status == 400 and kind != "index_closed_exception":
        return PermanentError(what)
    return SinkUnavailableError(what, hint=_HINT)
