"""The deployment of a chaos run: made under a name that is marked for it, and taken away at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pipeline
from pipeline import settings as configuration
from pipeline.bridge.start import group_of
from pipeline.capture.topics import ensure_topics, remove_topics
from pipeline.chaos.fleet import Fleet, Kind, Member
from pipeline.chaos.sink import Sink
from pipeline.control.database import ControlDatabase, migrate
from pipeline.control.removal import forget_consumer
from pipeline.errors import PermanentError, PipelineError
from pipeline.lanes.store import connect
from pipeline.settings import Settings

_TOML = """
[deployment]
name = "{name}"
datastream = {{ topic = "{name}", partitions = {partitions} }}
eventstream = {{ topic = "{name}.events", partitions = 1 }}
replication_factor = {ground.replication_factor}
min_insync_replicas = {ground.min_insync_replicas}

[sources]

[consumers.{name}]
handler = "pipeline.chaos.sink:take"
group = {group}
turn_events = 200
lease = "2s"
turn_limit = "20s"
"""
PARTITIONS = 6
_MARK = "chaos"
_CODE = Path(pipeline.__file__).parents[1]


class Ground(NamedTuple):
    """Under whose name a run works, and how often Kafka keeps its records."""

    name: str
    replication_factor: int
    min_insync_replicas: int


OWN = Ground(_MARK, 1, 1)
"""Servers that are started for the run."""


def marked(settings: Settings) -> Ground:
    """PermanentError unless the deployment's name says that chaos may strike where it runs."""
    deployment = settings.configuration.deployment
    if _MARK not in deployment.name.split("_"):
        raise PermanentError(
            f'deployment "{deployment.name}" is not marked for chaos',
            hint=f'run it on a stack of its own, with a pipeline.toml that says name = "{_MARK}"',
        )
    return Ground(deployment.name, deployment.replication_factor, deployment.min_insync_replicas)


@dataclass
class Site:
    """Topic, consumer, control rows, keys and sink all bear one name: the deployment's, and what tells this run from others.

    `code` is where the processes take their modules from, `directory` what they write into, `group` how many lanes a turn
    has at most.
    """

    ground: Ground
    run: str
    directory: Path
    code: Path = _CODE
    variables: Mapping[str, str] = field(default_factory=dict)
    group: int = 5
    settings: Settings = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.ground.name[:22]}_{self.run}"
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        (self.directory / "pipeline.toml").write_text(
            _TOML.format(name=self.name, partitions=PARTITIONS, ground=self.ground, group=self.group)
        )
        environment = {**os.environ, **self.variables}
        self.environment = {
            **{name: value for name, value in environment.items() if not name.startswith("PIPELINE_")},
            "PYTHONPATH": str(self.code),
            "PYTHONUNBUFFERED": "1",
        }
        self.settings = configuration.load(self.environment, self.directory)
        known = self.settings.environment
        self.database = ControlDatabase(known.control_database_url.get_secret_value())
        self.redis = connect(known.redis_url.get_secret_value())
        self.sink = Sink(known.control_database_url.get_secret_value(), self.name)

    @property
    def consumer(self) -> str:
        """The only consumer."""
        return self.name

    def create(self, merchants: Sequence[str]) -> None:
        """Make everything but processes."""
        migrate(self.database)
        known = self.settings.environment
        ensure_topics(
            known.kafka_bootstrap_servers, self.settings.configuration.deployment, known.kafka_security
        )
        self.sink.create(merchants)

    def destroy(self) -> None:
        """Take everything away; goes on when something cannot be."""
        known = self.settings.environment
        for take_away in (
            self.sink.drop,
            lambda: forget_consumer(self.database, self.consumer),
            self.empty_lanes,
            lambda: remove_topics(
                known.kafka_bootstrap_servers,
                self.settings.configuration.deployment,
                [group_of(self.settings, self.consumer)],
                known.kafka_security,
            ),
        ):
            with suppress(PipelineError):
                take_away()
        self.close()

    def close(self) -> None:
        """Close this thread's connections."""
        self.sink.close()
        self.database.close()
        self.redis.close()

    def empty_lanes(self) -> None:
        """Take away every key of this deployment, and no other."""
        some: list[bytes] = []
        for key in self.redis.scan_iter(match=f"{self.name}:*", count=1000):
            some.append(key)
            if len(some) == 1000:
                self.redis.unlink(*some)
                some.clear()
        if some:
            self.redis.unlink(*some)

    def fleet(self, bridges: int, workers: int) -> Fleet:
        """So many bridges, one more that joins now and then, and so many workers of either pool."""
        members = [self._member(f"bridge{n}", "bridge") for n in range(bridges + 1)]
        members[-1].wanted = False
        for kind in ("threads", "prefork"):
            members += [self._member(f"{kind}{n}", kind) for n in range(workers)]
        return Fleet(members, self.environment, self.directory / "logs")

    def _member(self, name: str, kind: Kind) -> Member:
        module = (
            f"pipeline bridge {self.consumer}"
            if kind == "bridge"
            else f"celery -A tasks.app worker -Q {self.consumer} -P {kind} -c 2 -l WARNING -n {name}@{self.name}"
            " --without-gossip --without-mingle"
        )
        return Member(name, kind, [sys.executable, "-m", *module.split()])
