"""One index per type, its mapping generated from the captured columns.

The stored document (``_source``) is the row exactly as it was captured; the mapping only decides what can be searched.
Values a field cannot hold (NaN, infinity, dates before Christ) stay in the document and are not searchable.
Numerics are searchable exactly by equality (keyword) and, as doubles, by range (``.number``). Times are searched by the
millisecond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from elasticsearch import BadRequestError, Elasticsearch

from pipeline.domain.table import Column, Table, by_type
from pipeline.errors import ConfigurationError
from pipeline.search.client import translated
from pipeline.search.naming import first_index, read_alias, write_alias
from pipeline.settings import Settings

Field = Mapping[str, Any]

# A term has at most 32,766 bytes, and one character up to four; longer values stay unsearchable instead of failing.
_KEYWORD: Field = {"type": "keyword", "ignore_above": 8191}
_STORED_ONLY: Field = {"type": "keyword", "index": False, "doc_values": False}
_LONG: Field = {"type": "long"}
_DOUBLE: Field = {"type": "double", "ignore_malformed": True}
_TEXT: Field = {**_KEYWORD, "fields": {"text": {"type": "text", "norms": False}}}
_NUMERIC: Field = {**_KEYWORD, "fields": {"number": _DOUBLE}}
_TIME: Field = {"type": "date", "format": "strict_date_optional_time_nanos", "ignore_malformed": True}
_JSON: Field = {"type": "object", "enabled": False}

_FIELDS: Mapping[str, Field] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), _LONG),
    **dict.fromkeys(("real", "double precision"), _DOUBLE),
    **dict.fromkeys(("text", "character varying", "character", "text[]"), _TEXT),
    **dict.fromkeys(("timestamp with time zone", "timestamp without time zone", "date"), _TIME),
    **dict.fromkeys(("json", "jsonb"), _JSON),
    "numeric": _NUMERIC,
    "boolean": {"type": "boolean"},
}
_CDC: Field = {
    "properties": {
        "merchant": {"type": "keyword"},
        "key": _STORED_ONLY,
        "ver": _STORED_ONLY,  # Elasticsearch compares its own _version
        "src": {"type": "keyword"},
        "table": {"type": "keyword", "ignore_above": 8191},
        "deleted": {"type": "boolean"},
        "partition": {"type": "integer"},
        "offset": {"type": "long"},
    }
}
_MODIFIER = re.compile(r"\(.*?\)")
# A dot would make an object of it, `cdc` is ours, and the others are Elasticsearch's own.
_IMPOSSIBLE = re.compile(
    r"\s*|.*\..*|cdc|_(doc_count|feature|field_names|id|ignored|ignored_source|index|nested_path|routing|seq_no|size"
    r"|source|tier|type|version)",
    re.DOTALL,
)

# Elasticsearch's own refresh: only the safety net for a worker that died between its bulk and its refresh.
REFRESH_INTERVAL = "5s"


def mapping(table: Table) -> dict[str, Any]:
    """The mapping of a table's type; ConfigurationError names columns Elasticsearch cannot hold."""
    problems = tuple(
        f'{table.source} {table.name}: column "{column.name}" cannot be a field of a search document; rename it'
        for column in table.columns
        if _IMPOSSIBLE.fullmatch(column.name)
    )
    if problems:
        raise ConfigurationError(problems)
    properties = {column.name: _field(column) for column in table.columns}
    return {"dynamic": False, "_routing": {"required": True}, "properties": {**properties, "cdc": _CDC}}


def _field(column: Column) -> Field:
    return _FIELDS.get(_MODIFIER.sub("", column.type), _KEYWORD)


def ensure_indices(client: Elasticsearch, settings: Settings, tables: Iterable[Table]) -> list[str]:
    """Create the index and aliases of each type, and add fields of new columns; returns the indices it changed.

    ConfigurationError lists every existing field that is mapped otherwise: such a field can never be changed in place.
    """
    changed: list[str] = []
    problems: list[str] = []
    for type_, table in sorted(by_type(tables).items()):
        with translated(f"preparing the index of {type_}"):
            if _create(client, settings, table):
                changed.append(first_index(settings.deployment, type_))
                continue
            name, found = _existing(client, settings.deployment, type_)
            conflicts, missing = _compared(name, table, found["mappings"])
            problems += conflicts + _alias_problems(settings.deployment, type_, name, found)
            if missing and not conflicts:
                client.indices.put_mapping(index=name, properties=missing)
                changed.append(name)
    if problems:
        raise ConfigurationError(tuple(problems))
    return changed


def check_indices(client: Elasticsearch, settings: Settings, tables: Iterable[Table]) -> list[str]:
    """What is wrong with the indices of these tables, a sentence each; empty when all is as `migrate` leaves it."""
    problems: list[str] = []
    for type_, table in sorted(by_type(tables).items()):
        with translated(f"looking at the index of {type_}"):
            if not client.indices.exists_alias(name=write_alias(settings.deployment, type_)):
                problems.append(f'type "{type_}" has no index; run `pipeline migrate`')
                continue
            name, found = _existing(client, settings.deployment, type_)
        conflicts, missing = _compared(name, table, found["mappings"])
        problems += conflicts + _alias_problems(settings.deployment, type_, name, found)
        problems += [f'{name}: field "{field}" is missing; run `pipeline migrate`' for field in missing]
        problems += _setting_problems(name, found["settings"]["index"])
    return problems


def _create(client: Elasticsearch, settings: Settings, table: Table) -> bool:
    """False when the type has its index already; index and aliases are made in one step."""
    write = write_alias(settings.deployment, table.type)
    if client.indices.exists_alias(name=write):
        return False
    try:
        client.indices.create(
            index=first_index(settings.deployment, table.type),
            mappings=mapping(table),
            settings=_settings(settings),
            aliases={write: {"is_write_index": True}, read_alias(settings.deployment, table.type): {}},
        )
    except BadRequestError as error:
        if error.message != "resource_already_exists_exception":
            raise
        return False  # another release was faster, or the aliases were taken away: the caller looks
    return True


def _settings(settings: Settings) -> dict[str, Any]:
    search = settings.configuration.search
    return {
        "number_of_shards": search.shards,
        "number_of_replicas": search.replicas,
        "refresh_interval": REFRESH_INTERVAL,
        # With "async" a killed server loses documents it has acknowledged.
        "translog": {"durability": "request"},
        "mapping": {"total_fields": {"limit": 5000}},
    }


def _existing(client: Elasticsearch, deployment: str, type_: str) -> tuple[str, dict[str, Any]]:
    """The index that takes a type's writes, with its aliases, mapping and settings."""
    write = write_alias(deployment, type_)
    name = write if client.indices.exists_alias(name=write) else first_index(deployment, type_)
    found: dict[str, dict[str, Any]] = client.indices.get(index=name).body
    for index, body in found.items():
        if body["aliases"].get(write, {}).get("is_write_index"):
            return index, body
    return next(iter(found.items()))


def _alias_problems(deployment: str, type_: str, name: str, found: Mapping[str, Any]) -> list[str]:
    read, write = read_alias(deployment, type_), write_alias(deployment, type_)
    aliases = found["aliases"]
    problems = [
        f'{name}: alias "{alias}" is missing; add it' for alias in (read, write) if alias not in aliases
    ]
    if write in aliases and not aliases[write].get("is_write_index"):
        problems.append(f'{name}: alias "{write}" takes no writes; set is_write_index')
    return problems


def _compared(name: str, table: Table, found: Mapping[str, Any]) -> tuple[list[str], dict[str, Field]]:
    """Sentences on fields that are mapped otherwise, and the fields that are missing."""
    wanted: dict[str, Field] = mapping(table)["properties"]
    there = found.get("properties", {})
    conflicts = [
        f'{name}: field "{field}" is mapped as {there[field]}, but its column needs {wanted[field]}; a mapped field '
        "cannot be changed: give the table a new type"
        for field in wanted
        if field in there and there[field] != wanted[field]
    ]
    return conflicts, {field: wanted[field] for field in wanted if field not in there}


def _setting_problems(name: str, found: Mapping[str, Any]) -> list[str]:
    problems = []
    if found.get("translog", {}).get("durability") != "request":
        problems.append(f'{name}: translog.durability is not "request": acknowledged documents could be lost')
    if found.get("blocks", {}).get("write") == "true":
        problems.append(f"{name}: writes are blocked (index.blocks.write)")
    return problems
