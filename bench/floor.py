"""The floor: the same changes read by psycopg and written by bulks of 1,000 with external versions, and nothing else.

No capture, no Kafka, no lanes, no warehouse, one process, one request at a time: what no pipeline into Elasticsearch
can beat on the same machine without parallel requests.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import psycopg
from elasticsearch import Elasticsearch
from psycopg.rows import TupleRow

from bench import proc
from bench.deployment import NAME, TYPE, Deployment
from bench.load import Change, chunks
from bench.servers import servers
from pipeline.search.client import connect
from pipeline.search.naming import first_index

INDEX = f"{NAME}-floor-000001"
_BULK = 1000
_TABLE = "CREATE TABLE floor (seq bigint PRIMARY KEY, id bigint NOT NULL, merchant text NOT NULL, image text)"
_PARAMETERS = {"filter_path": "items.*.error.type"}
_HEADERS = {"content-type": "application/x-ndjson", "accept": "application/json"}
Row = tuple[int, int, str, str | None]


@dataclass(frozen=True, slots=True)
class Floor:
    """Changes per second, and CPU microseconds per change: of the reading process, Elasticsearch and PostgreSQL."""

    events_per_s: float
    cpu_us: dict[str, float]


def prepare(deployment: Deployment, changes: Iterable[Change]) -> int:
    """Put the changes, as they are, into a table of their own that nobody captures; a delete has no image."""
    columns: dict[int, dict[str, str | int]] = {}
    with psycopg.connect(deployment.writer_url) as session, session.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS floor")
        cursor.execute(_TABLE)
        with cursor.copy("COPY floor FROM STDIN") as copy:
            for change in changes:
                copy.write_row((change.seq, change.id, str(change.merchant), _image(columns, change)))
        counted = cursor.execute("SELECT count(*) FROM floor").fetchone()
    return int(counted[0]) if counted else 0


def _image(known: dict[int, dict[str, str | int]], change: Change) -> str | None:
    if change.operation == "delete":
        known.pop(change.id)
        return None
    row = known[change.id] = {**known.get(change.id, {}), **change.values}
    stamps = {"created_at": "2026-01-01T00:00:00.000000+00:00", "updated_at": None}
    return msgspec.json.encode({**row, **stamps}).decode()


def measure(deployment: Deployment) -> Floor:
    """Read the table in order and index it; ends when everything is searchable."""
    elasticsearch = connect(deployment.settings.environment.elasticsearch_url.get_secret_value())
    with elasticsearch, psycopg.connect(deployment.writer_url) as session:
        _make_index(elasticsearch)
        known = {name: pid for name, pid in servers().items() if name in ("elasticsearch", "postgres")}
        before, own, began = proc.cpu_seconds(known), time.process_time(), time.monotonic()
        count = sum(_bulk(elasticsearch, rows) for rows in _bulks(session))
        elasticsearch.indices.refresh(index=INDEX)
        seconds, spent = time.monotonic() - began, {"floor": time.process_time() - own}
        spent |= proc.differences(proc.cpu_seconds(known), before)
    return Floor(count / seconds, {name: value / count * 1e6 for name, value in spent.items()})


def _make_index(client: Elasticsearch) -> None:
    """Mapped as the pipeline's own index of these rows."""
    model = client.indices.get(index=first_index(NAME, TYPE)).body[first_index(NAME, TYPE)]
    client.indices.delete(index=INDEX, ignore_unavailable=True)
    client.indices.create(
        index=INDEX,
        mappings={"dynamic": False, "properties": model["mappings"]["properties"]},
        settings={"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "5s"},
    )


def _bulks(session: psycopg.Connection[TupleRow]) -> Iterator[list[Row]]:
    with session.cursor(name="floor") as cursor:
        cursor.itersize = _BULK
        cursor.execute("SELECT seq, id, merchant, image FROM floor ORDER BY seq")
        yield from chunks(cursor, _BULK)


def _bulk(client: Elasticsearch, rows: list[Row]) -> int:
    body = "".join(map(_lines, rows))
    answer = client.perform_request(
        "POST", f"/{INDEX}/_bulk", params=_PARAMETERS, headers=_HEADERS, body=body.encode()
    ).body
    wrong = {item["error"]["type"] for entry in answer.get("items", []) for item in entry.values()}
    if wrong - {"version_conflict_engine_exception"}:
        raise RuntimeError(f"the floor's bulk failed: {sorted(wrong)}")
    return len(rows)


def _lines(row: Row) -> str:
    seq, identity, merchant, image = row
    verb = "delete" if image is None else "index"
    head = f'{{"{verb}":{{"_id":"{identity}","routing":"{merchant}","version":{seq},"version_type":"external"}}}}\n'
    return head if image is None else f"{head}{image}\n"
