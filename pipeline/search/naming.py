"""Names in Elasticsearch: the index and aliases of a type, and the id of a row's document."""

from __future__ import annotations

import hashlib
import re

from pipeline.domain.routing import is_merchant

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_LONGEST_ID = 512  # bytes; Elasticsearch refuses a whole bulk in which one id is longer


def first_index(deployment: str, type_: str) -> str:
    """The index a type starts with; readers and writers use the aliases."""
    return f"{_stem(deployment, type_)}-000001"


def read_alias(deployment: str, type_: str) -> str:
    """The name every reader uses."""
    return f"{_stem(deployment, type_)}-read"


def write_alias(deployment: str, type_: str) -> str:
    """The name every writer uses; exactly one index behind it takes writes."""
    return f"{_stem(deployment, type_)}-write"


def _stem(deployment: str, type_: str) -> str:
    # Checked here because a "*" or "," in an index name would reach other indices.
    for name in (deployment, type_):
        if not _NAME.fullmatch(name):
            raise ValueError(f'"{name[:40]}" is no name of a deployment or type')
    return f"{deployment}-{type_}"


def require_merchant(merchant: str) -> str:
    """`merchant` when it is a merchant id, else ValueError: only such ids keep document ids apart."""
    if not is_merchant(merchant):
        raise ValueError(f'"{merchant[:70]}" is no merchant id')
    return merchant


def document_id(merchant: str, type_: str, key: str) -> str:
    """The id of the row with encoded key `key`; different rows have different ids, of at most 512 bytes each.

    Merchant ids and types contain no ``:`` and an encoded key contains ``%`` only in ``%25`` and ``%3A``, so a
    hashed key looks like no other.
    """
    name = f"{merchant}:{type_}:{key}"
    if len(name) <= _LONGEST_ID // 4 or len(name.encode()) <= _LONGEST_ID:
        return name
    return f"{merchant}:{type_}:%sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def key_of_id(identifier: str) -> str:
    """The encoded key inside a document's id, or its hash when it was long."""
    return identifier.split(":", 2)[-1]
