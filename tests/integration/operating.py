"""An operator at the command line of a deployment of a test's own."""

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from typing import Any

import msgspec
from click.testing import CliRunner

from pipeline.cli import pipeline
from pipeline.control import detached
from pipeline.control.fences import Hold
from pipeline.domain.routing import partition_of
from pipeline.errors import PipelineError
from pipeline.ports import Detachment, State
from pipeline.replay.rehearsal import change
from tests.integration.bridged import PARTITIONS, PIPELINE, Bridged


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Operator:
    """Runs ``pipeline`` on the consumer ``audit``."""

    bridged: Bridged
    numbers: int = 0
    stamps: dict[tuple[str, int], int] = field(default_factory=dict)

    def lanes(self, *words: str, expected: int = 0) -> Said:
        """Runs it in this process, which spares seconds; what ``main`` does with our errors is done here."""
        return self.command("lanes", *words, expected=expected)

    def command(self, *words: str, expected: int = 0) -> Said:
        """The same of any command of ``pipeline``."""
        environment = {**os.environ, **self.bridged.variables}
        with chdir(self.bridged.directory):
            done = CliRunner(env=environment).invoke(pipeline, list(words))
        code, err = done.exit_code, done.stderr
        if isinstance(done.exception, PipelineError):
            err += f"error: {done.exception}"
        elif done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert code == expected, done.stdout + err
        return Said(code, done.stdout, err)

    def process(self, *words: str, expected: int = 0) -> Said:
        """Runs it as a process."""
        done = subprocess.run(
            [PIPELINE, "lanes", *words],
            cwd=self.bridged.directory,
            env={**os.environ, **self.bridged.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def told(self, *words: str) -> Any:
        """What a command answers to programs."""
        return json.loads(self.lanes(*words, "--json").out)

    def shown(self, merchant: str) -> Mapping[str, Any]:
        """The merchant's lanes by name, as programs get them."""
        return {lane["lane"]: lane for lane in self.told("show", "audit", merchant)["lanes"]}

    def publish(self, *merchants: str) -> dict[str, list[int]]:
        """One change for each of these merchants, numbered on; the offsets they got, by merchant.

        ``stamps`` has when Kafka says each was published, by offset, in milliseconds since 1970.
        """
        sent = []
        for merchant in merchants:
            self.numbers += 1
            value = msgspec.json.encode(change(self.numbers, merchant, "payment", {"id": self.numbers}))
            sent.append((merchant, self._send(merchant, value)))
        self.bridged.producer.flush(10)
        offsets: dict[str, list[int]] = {}
        for merchant, future in sent:
            record = future.get(10)
            offsets.setdefault(merchant, []).append(record.offset)
            self.stamps[merchant, record.offset] = record.timestamp
        return offsets

    def _send(self, merchant: str, value: bytes) -> Any:
        topic, partition = self.bridged.settings.datastream.topic, partition_of(merchant, PARTITIONS)
        return self.bridged.producer.send(topic, key=merchant.encode(), value=value, partition=partition)

    def detach(self, lane: str, first: int, state: State, reason: str) -> None:
        """A row as a bridge would write it."""
        topic = self.bridged.settings.datastream.topic
        place = (topic, partition_of(lane, PARTITIONS))
        held = detached.take_over(self.bridged.database, "audit", [place])[place]
        hold = Hold("audit", *place, held.tenure.fence)
        detached.detach(self.bridged.database, hold, [Detachment(lane, first, state, reason)])

    def requests(self) -> list[tuple[Any, ...]]:
        """Every request ever made: lane, verb, offset, and what became of it."""
        with self.bridged.database.transaction() as connection:
            return connection.execute(
                "SELECT lane, verb, to_offset, finished_at IS NOT NULL, refusal FROM lane_requests ORDER BY id"
            ).fetchall()

    def actions(self) -> list[tuple[Any, ...]]:
        """What people did to lanes: verb, subject, reason."""
        with self.bridged.database.transaction() as connection:
            return connection.execute(
                "SELECT verb, subject, reason FROM actions WHERE starts_with(verb, 'lanes.') ORDER BY id"
            ).fetchall()
