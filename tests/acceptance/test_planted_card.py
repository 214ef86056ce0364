"""A card number that is planted in columns with a rule: not one byte of it leaves the source, wherever its row goes."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import psycopg
import redis
import zstandard
from elasticsearch import Elasticsearch
from psycopg import sql

from devstack.process import wait_until
from tests.acceptance.deployment import SOURCES, Deployment
from tests.conftest import connect_warehouse
from tests.integration.kafka_topic import read_topic

SOURCE = SOURCES[0]
CARD, KEPT = "4929718231046652", "kept-in-clear"
SPACED = "4929 7182 3104 6652"
PLANTED = [
    needle.encode()
    for needle in (
        CARD, CARD[:12], SPACED, SPACED[:14], "-".join(SPACED.split()), CARD.encode().hex(), "4929718231046652.25",
        hashlib.sha256(CARD.encode()).hexdigest(), hashlib.sha256(SPACED.encode()).hexdigest(),
    )
]  # fmt: skip
RULES = (
    'exclude = ["token", "document"]\n'
    'columns = { pan = "last4", ssn = "hash", memo = "mask", raw = "mask", amount = "mask", cards = "mask", body = "last4" }\n'
)
COLUMNS = (
    "alter table notes add token text, add document jsonb, add pan text, add ssn text, add memo text, add raw bytea,"
    " add amount numeric, add cards text[], add odd json, add kept text, add w integer"
)
VALUES = (
    f"'{CARD}', jsonb_build_object('pan', '{CARD}'), '{CARD}', '{CARD}', '{SPACED}', '{CARD}'::bytea, 4929718231046652.25,"
    f" array['{CARD}', '{SPACED}'], '{CARD}', '{KEPT}'"
)
INSERT = (
    "insert into notes (merchant_id, number, step, token, document, pan, ssn, memo, raw, amount, cards, body, kept)"
    " select 'm', n, 0, {0} from generate_series({1}, {2}) n"
)


def deployed(one: Deployment) -> None:
    """Capture with rules, of a table that has rows already."""
    toml = one.directory / "pipeline.toml"
    toml.write_text(toml.read_text().replace('type = "note"\n', f'type = "note"\n{RULES}'))
    for source in SOURCES:
        write(one, COLUMNS, source=source)
    write(one, INSERT.format(VALUES, 1, 3))
    one.install()


def write(one: Deployment, *statements: str, source: str = SOURCE) -> None:
    with psycopg.connect(one.writer_url(source), autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


# Everything a row can go through: changes, moves, keys, an image that fails and is read again, one that is cut, JSON that
# no consumer can read and that is set aside with its record.
CHANGES = (
    INSERT.format(VALUES, 10, 19),
    "update notes set step = 1 where number < 12",
    f"update notes set pan = '{CARD[:-4]}9999', merchant_id = 'n' where number = 12",
    "update notes set number = 113 where number = 13",
    "delete from notes where number = 14",
    "alter table notes drop column w",
    "update notes set step = 2 where number = 15",
    "alter table notes add w integer",
    "update notes set kept = repeat('x', 1000001), step = 3 where number = 16",
    r"""update notes set odd = '"\ud800"' where number = 17""",
)


def copies(one: Deployment) -> Iterator[tuple[str, bytes]]:
    """Everything that anything of the pipeline has stored, by place."""
    yield "redis", b"".join(_redis(redis.Redis(port=one.redis_port)))
    yield from _kafka(one)
    with Elasticsearch(one.variables["ELASTICSEARCH_URL"]) as search:
        search.indices.refresh(index=f"{one.name}-*")
        found = search.search(index=f"{one.name}-*", size=1000)
        yield "elasticsearch", json.dumps(found.body["hits"]["hits"]).encode()
    yield "s3", b"".join(_objects(one))
    with connect_warehouse(one.variables["REDSHIFT_URL"]) as session, session.cursor() as cursor:
        cursor.execute(f'select * from "{one.name}".note')
        yield "redshift", repr(cursor.fetchall()).encode()
    admin = one.variables["DEVSTACK_POSTGRES_URL"].rpartition("/")[0]
    yield "control database", _dump(f"{admin}/{one.database('control')}", ("public",))
    yield "queue", _dump(f"{admin}/{one.database(SOURCE)}", ("pgq", "cdc"))
    for log in (one.directory / "logs").iterdir():
        yield f"log {log.name}", log.read_bytes()


def _redis(client: Any) -> Iterator[bytes]:
    """Keys and values; the type of a reply depends on what is asked, so the client has none here."""
    for key in client.scan_iter(count=1000):
        yield key
        match client.type(key):
            case b"list":
                yield from client.lrange(key, 0, -1)
            case b"hash":
                yield from (part for pair in client.hgetall(key).items() for part in pair)
            case b"zset":
                yield from client.zrange(key, 0, -1)
            case b"set":
                yield from client.smembers(key)
            case b"stream":
                yield repr(client.xrange(key)).encode()
            case _:
                yield client.get(key) or b""


def _kafka(one: Deployment) -> Iterator[tuple[str, bytes]]:
    for suffix in ("", ".events", ".snapshot", ".progress"):
        records = read_topic(one.variables["KAFKA_BOOTSTRAP_SERVERS"], one.name + suffix)
        yield f"topic{suffix}", b"".join((record.key or b"") + (record.value or b"") for record in records)


def _objects(one: Deployment) -> Iterator[bytes]:
    store, bucket = boto3.client("s3"), one.variables["S3_BUCKET"]
    for entry in store.list_objects_v2(Bucket=bucket, Prefix=f"parts/{one.name}/").get("Contents", []):
        content = store.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        if content.startswith(b"\x28\xb5\x2f\xfd"):
            content = zstandard.ZstdDecompressor().stream_reader(content).read()
        yield gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def _dump(url: str, schemas: tuple[str, ...]) -> bytes:
    """Every row of every table of these schemas, as text and, where it is bytes, in clear."""
    found = []
    with psycopg.connect(url) as session:
        tables = session.execute(
            "select schemaname, tablename from pg_tables where schemaname = any(%s)", (list(schemas),)
        ).fetchall()
        for place in tables:
            rows = session.execute(sql.SQL("select * from {}").format(sql.Identifier(*place))).fetchall()
            found += [
                value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row
            ]
    return b"\n".join(found)


def test_a_planted_card_number_is_found_nowhere(deployment: Callable[[], Deployment], tmp_path: Path) -> None:
    # Mutants: a rule left out of the old row; of a row that is read again; of snapshots; a hash without its key.
    one = deployment()
    deployed(one)
    one.start(f"capture_{SOURCE}", "bridge_search", "bridge_warehouse")
    write(one, *CHANGES)
    one.run("capture", "snapshot", SOURCE)
    waiting: dict[str, bytes] = {}

    def in_lanes() -> bool:
        waiting["redis before"] = b"".join(_redis(redis.Redis(port=one.redis_port)))
        return waiting["redis before"].count(KEPT.encode()) > 40

    assert wait_until(in_lanes, 60, pause=0.5)
    one.start("worker_search", "worker_warehouse", "beat")
    one.catch_up("search")
    one.catch_up("warehouse")

    def loaded() -> bool:
        places.update(copies(one))
        return all(places[place].count(KEPT.encode()) >= least for place, least in CONTROLS.items())

    places: dict[str, bytes] = {}
    arrived = wait_until(loaded, 60, pause=1.0)
    places |= waiting
    assert arrived, {place: text.count(KEPT.encode()) for place, text in places.items()}
    assert b"***6652" in places["elasticsearch"] and b"***6652" in places["redshift"]
    assert _found(places) == []


# In how many copies the text beside the card number must be, or the search for the number would prove nothing. A rejected
# record is in the control database.
CONTROLS = {
    "topic": 20, "topic.snapshot": 10, "elasticsearch": 10, "s3": 10, "redshift": 10, "queue": 10, "control database": 1
}  # fmt: skip


def _found(places: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    return [(place, needle) for place, text in places.items() for needle in PLANTED if needle in text]
