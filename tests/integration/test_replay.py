"""`pipeline replay` as a process: parts of a real topic through a consumer's function, beside which nothing moves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from redis import Redis

from pipeline.control import rejected
from pipeline.control.database import ControlDatabase, migrate
from pipeline.domain.routing import partition_of
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.replay.rehearsal import change
from tests.conftest import coordinated

pytestmark = pytest.mark.integration
PARTITIONS = 3
MERCHANTS = [str(number) for number in range(1, 11)]
PIPELINE = Path(sys.executable).with_name("pipeline")
HANDLER = """
import json, os
from pipeline.consumer import SinkUnavailableError

def handle(turn):
    for lane in turn:
        if lane.merchant == os.environ.get("DOWN_AT"):
            raise SinkUnavailableError("the sink is down")
        for index, event in enumerate(lane.events):
            if lane.merchant == os.environ.get("POISON") and event.ev > 20:
                lane.done(index)
                lane.retry("poison", after=0)
                break
            if event.type == "secret":
                lane.reject(index, "secrets are not audited")
                continue
            with open("taken", "a") as file:
                file.write(f"{lane.merchant} {event.ev}\\n")
        else:
            lane.done()

def other(turn):
    with open("other", "a") as file:
        file.writelines(f"{lane.merchant}\\n" for lane in turn)
    for lane in turn:
        lane.done()
"""


@dataclass(slots=True)
class Place:
    """A deployment whose consumer `audit` writes what it takes into a file."""

    directory: Path
    name: str
    topic: str
    variables: Mapping[str, str]
    database: ControlDatabase
    producer: KafkaProducer
    numbers: int = 0

    def publish(self, *merchants: str, type_: str = "payment") -> None:
        """One change for each of these merchants, numbered on."""
        for merchant in merchants:
            self.numbers += 1
            self.publish_again(self.numbers, merchant, type_)
        self.producer.flush(10)

    def publish_again(self, number: int, merchant: str, type_: str = "payment") -> None:
        value = msgspec.json.encode(change(number, merchant, type_, {"id": number}))
        self.send(partition_of(merchant, PARTITIONS), merchant.encode(), value)

    def send(self, partition: int, key: bytes | None, value: bytes) -> int:
        sent = self.producer.send(self.topic, key=key, value=value, partition=partition)
        return int(sent.get(10).offset)

    def replay(self, *options: str, expected: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PIPELINE, "replay", "audit", *options],
            cwd=self.directory,
            env={**os.environ, **self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stdout + done.stderr
        return done

    def replayed(self, *options: str, expected: int = 0, **variables: str) -> dict[str, Any]:
        """What a replay answers to programs."""
        done = self.replay("--json", "--reason", "test", *options, expected=expected, **variables)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def taken(self) -> dict[str, list[int]]:
        """Numbers by merchant, in the order in which the function took them; forgotten then."""
        found: dict[str, list[int]] = {}
        path = self.directory / "taken"
        for line in path.read_text().splitlines() if path.exists() else []:
            merchant, number = line.split()
            found.setdefault(merchant, []).append(int(number))
        path.unlink(missing_ok=True)
        return found

    def actions(self) -> list[tuple[Any, ...]]:
        with self.database.transaction() as connection:
            return connection.execute("SELECT verb, subject, reason FROM actions ORDER BY id").fetchall()


@pytest.fixture
def place(
    tmp_path: Path,
    variables: Mapping[str, str],
    kafka_bootstrap: str,
    kafka_topic: Callable[..., str],
    redis_namespace: str,
    control_url: str,
) -> Iterator[Place]:
    topic, name = kafka_topic(PARTITIONS), redis_namespace.rstrip(":")
    (tmp_path / "pipeline.toml").write_text(
        f"""
        [deployment]
        name = "{name}"
        datastream = {{ topic = "{topic}", partitions = {PARTITIONS} }}
        [sources]
        [consumers.audit]
        handler = "audit:handle"
        group = 5
        turn_events = 7
        """
    )
    (tmp_path / "audit.py").write_text(HANDLER)
    database = ControlDatabase(control_url)
    migrate(database)
    producer = KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all")
    own = {**variables, "CONTROL_DATABASE_URL": control_url}
    yield Place(tmp_path, name, topic, own, database, producer)
    producer.close()
    database.close()


def test_all_of_a_topic_comes_in_each_merchants_order_and_nothing_else_moves(
    place: Place, kafka_admin: KafkaAdminClient, redis_url: str
) -> None:
    # Mutants: rejections go to the control database; the reader is a member of the group.
    place.publish(*MERCHANTS * 10)
    place.publish("1", type_="secret")
    answer = place.replayed()
    assert (answer["done"], answer["rejected"], answer["failed"], answer["stopped"]) == (100, 1, 0, "")
    assert place.taken() == {m: list(range(int(m), 101, 10)) for m in MERCHANTS}
    (named,) = answer["named"]
    assert (named[:2], named[4]) == (["rejected", "1"], "secrets are not audited")
    assert rejected.listed(place.database, "audit") == []
    group = f"{place.name}-audit"
    assert coordinated(lambda: kafka_admin.list_group_offsets(group)) == {group: {}}
    with Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"{place.name}*")) == []
    assert place.actions() == [("replay", "audit", "test")]


def test_a_part_is_named_by_merchant_offset_and_time(place: Place) -> None:
    place.publish(*["6"] * 5)
    later = datetime.now(UTC) + timedelta(milliseconds=1)
    between = later.replace(microsecond=later.microsecond // 1000 * 1000)  # Kafka's clock has milliseconds
    while datetime.now(UTC) <= between:
        pass
    place.publish(*["6"] * 5, *MERCHANTS)
    partition = partition_of("6", PARTITIONS)
    assert place.replayed("--merchant", "6", "--from", "2", "--to", "4")["done"] == 2
    assert place.taken() == {"6": [3, 4]}
    place.replayed("--from", between.isoformat(), "--merchant", "6")
    assert place.taken() == {"6": [6, 7, 8, 9, 10, 16]}
    place.replayed("--to", between.isoformat())
    assert place.taken() == {"6": [1, 2, 3, 4, 5]}
    place.replayed("--from", f"{partition}:9", "--to", f"{partition}:10")
    assert place.taken() == {"6": [10]}
    assert "an offset alone names no place" in place.replay("--dry-run", "--from", "2", expected=1).stderr


def test_a_failing_merchant_is_told_and_the_others_are_whole(place: Place) -> None:
    place.publish(*MERCHANTS * 10)
    answer = place.replayed("--attempts", "2", expected=1, POISON="6")
    assert (answer["done"], answer["failed"], answer["skipped"]) == (92, 1, 7)
    taken = place.taken()
    assert taken.pop("6") == [6, 16]
    assert sorted(taken) == sorted(set(MERCHANTS) - {"6"})
    assert all(len(numbers) == 10 for numbers in taken.values())
    said = place.replay("--reason", "test", "--attempts", "1", expected=1, POISON="6")
    assert "failed: merchant 6" in said.stderr
    assert "poison; the rest of this merchant is skipped" in said.stderr


def test_a_sink_that_is_away_stops_the_replay_and_it_goes_on_from_there(place: Place) -> None:
    place.publish(*["6"] * 20)
    answer = place.replayed("--attempts", "1", "--merchant", "6", expected=1, DOWN_AT="6")
    assert answer["stopped"] == "the sink is down"
    assert (answer["done"], answer["unavailable"]) == (0, 20)
    (position,) = answer["positions"].values()
    assert place.replayed("--merchant", "6", "--from", str(position))["done"] == 20


def test_what_goes_into_a_file_comes_out_of_it_alike(place: Place) -> None:
    place.publish(*MERCHANTS * 3)
    file = place.directory / "events.jsonl"
    counted = json.loads(place.replay("--to-file", str(file), "--json").stdout)
    assert counted["merchants"] == {merchant: {"payment": 3} for merchant in MERCHANTS}
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists already" in place.replay("--to-file", str(file), expected=2).stderr
    assert place.taken() == {}
    assert place.replayed("--file", str(file))["done"] == 30
    assert place.taken() == {m: list(range(int(m), 31, 10)) for m in MERCHANTS}
    place.replayed("--file", str(file), "--merchant", "6", "--handler", "audit:other")
    assert (place.directory / "other").read_text().split() == ["6"]
    assert place.taken() == {}


def test_a_dry_run_counts_and_runs_nothing(place: Place) -> None:
    place.publish("6", "6", "17")
    place.publish("6", type_="refund")
    said = place.replay("--dry-run").stdout
    rows = [re.findall(r"\w+", line) for line in said.splitlines() if "│" in line]
    assert rows == [["17", "payment", "1"], ["6", "payment", "2"], ["6", "refund", "1"]]
    assert place.actions() == []
    assert place.taken() == {}


def test_what_is_no_change_and_what_came_twice_is_left_out(place: Place) -> None:
    # Mutant: doubles run again after what was newer.
    place.publish("6", "6", "6")
    sweep = Sweep(1, "sweep", "s", "gateway0", "public.payments", "payment", None, "1", "truncate")
    for partition in range(PARTITIONS):
        place.send(partition, None, encode_sweep(sweep))
    for number in (1, 2, 3):
        place.publish_again(number, "6")
    place.publish("6")
    place.send(0, b"no merchant!", b"{}")
    answer = place.replayed()
    assert (answer["done"], answer["doubles"], answer["sweeps"], answer["rejected"]) == (4, 3, PARTITIONS, 1)
    assert place.taken() == {"6": [1, 2, 3, 4]}


def test_what_passed_retention_is_refused(place: Place, kafka_admin: KafkaAdminClient) -> None:
    place.publish(*["6"] * 5)
    place_of_6 = TopicPartition(place.topic, partition_of("6", PARTITIONS))
    kafka_admin.delete_records({place_of_6: 3})
    said = place.replay("--dry-run", "--merchant", "6", "--from", "1", expected=1).stderr
    assert f"offset 1 of partition {place_of_6.partition} passed retention, its first is now 3" in said
    assert place.replayed("--merchant", "6", "--from", "3")["done"] == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--reason is required"),
        (["--reason", "r", "--merchant", "a b"], "is no merchant id"),
        (["--from", "yesterday"], "is not"),
        (["--file", "audit.py", "--from", "1", "--dry-run"], "--file is read whole"),
    ],
)
def test_wrong_use_is_said(place: Place, options: list[str], problem: str) -> None:
    assert problem in place.replay(*options, expected=2).stderr
    assert place.actions() == []


def test_a_handler_that_is_not_there_is_said(place: Place) -> None:
    said = place.replay("--reason", "r", "--handler", "audit:nothing", expected=1).stderr
    assert "audit has no function nothing" in said
