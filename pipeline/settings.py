"""Settings through one door: ``pipeline.toml`` for what is captured, the environment for addresses and secrets.

``load()`` reports every problem at once, each with the file and line or the variable it stands in. ``.env`` in the
working directory is read when present; the process environment wins.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.domain.routing import snapshot_topic
from pipeline.domain.table import Rule
from pipeline.environment import Environment, sentence
from pipeline.environment import read as read_environment
from pipeline.errors import ConfigurationError
from pipeline.toml_lines import line_of

NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_OUR_QUEUES = {"loads", "sweeps", "tasks"}
_T = TypeVar("_T")
INDEX, STAGE = "tasks.search:index", "tasks.warehouse:stage"  # the handlers of our own consumers


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(
            "must start with a lower-case letter and have only lower-case letters, digits and _ (≤ 31)"
        )
    return text


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError('must be a number with a unit, such as "500ms", "5s", "10m" or "2h"')
    return text


def seconds(duration: str) -> float:
    """The length of a duration such as ``"5s"`` in seconds."""
    match = _DURATION.fullmatch(_duration(duration))
    assert match is not None  # `_duration` has raised otherwise
    return float(match[1]) * _SECONDS[match[2]]


Name = Annotated[str, AfterValidator(_name)]
Duration = Annotated[str, AfterValidator(_duration)]
TableName = Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Topic(_Section):
    """A topic's name and its partitions, which can never change: merchants are spread by their count."""

    topic: Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,200}$")] = "datastream"
    partitions: Annotated[int, Field(ge=1, le=1000)] = 12
    retention: Duration = "168h"


class Deployment(_Section):
    """Names everything that belongs together: consumer groups, lanes, indices, S3 prefix, warehouse schema."""

    name: Name
    datastream: Topic = Topic()
    eventstream: Topic = Topic(topic="eventstream")
    replication_factor: Annotated[int, Field(ge=1, le=10)] = 3
    min_insync_replicas: Annotated[int, Field(ge=1, le=10)] = 2
    producer: Literal["kafka-python", "confluent-kafka"] = "kafka-python"

    @property
    def snapshots(self) -> Topic:
        """The topic of rows read by snapshots: merchants lie in the partitions they have in ``datastream``."""
        return self.datastream.model_copy(update={"topic": snapshot_topic(self.datastream.topic)})

    @property
    def progress(self) -> Topic:
        """The compacted topic of how far each source is published."""
        return Topic(topic=f"{self.datastream.topic}.progress", partitions=1)


class Merchant(_Section):
    """Where a row's merchant id stands: in a ``column``; in the row of table ``parent`` that column ``on`` names; nowhere."""

    column: str | None = None
    parent: TableName | None = None
    on: str | None = None
    none: bool = False

    @model_validator(mode="after")
    def _one_place(self) -> Merchant:
        ways = (self.column is not None, self.parent is not None or self.on is not None, self.none)
        if sum(ways) != 1 or (self.parent is None) != (self.on is None):
            raise ValueError('must be { column = "…" }, { parent = "…", on = "…" } or { none = true }')
        return self


class SourceTable(_Section):
    """One captured table. ``type`` defaults to the table's name.

    Columns in ``exclude`` never leave the database; of those in ``columns`` only a hash, a mask or the last four
    characters do.
    """

    merchant: Merchant
    type: Name | None = None
    exclude: tuple[str, ...] = ()
    columns: dict[str, Rule] = {}
    capture: Literal["row", "statement"] = "row"


class Source(_Section):
    """One source database; its URL stands in ``<NAME>_DATABASE_URL``.

    ``emitters``: roles that may call ``cdc.emit``. ``alarm_lag`` and ``alarm_queue_bytes`` bound how long and how much
    may wait in its queue before the relay alarms, ``snapshot_backlog`` how many records of a snapshot may wait for the
    slowest consumer.
    """

    tables: dict[TableName, SourceTable]
    poll_interval: Duration = "10ms"
    emitters: tuple[Annotated[str, Field(min_length=1, max_length=63)], ...] = ()
    alarm_lag: Duration = "5m"
    alarm_queue_bytes: Annotated[int, Field(ge=1)] = 2 * 1024**3
    snapshot_backlog: Annotated[int, Field(ge=1000)] = 200_000

    @model_validator(mode="after")
    def _one_table_per_type(self) -> Source:
        # A sweep removes what a source wrote of a type: it must have been one table that wrote it.
        first: dict[str, str] = {}
        for name, table in self.tables.items():
            type = table.type or name.split(".", 1)[1]
            other = first.setdefault(type, name)
            if other != name:
                raise ValueError(
                    f'tables {other} and {name} both have type "{type}": give one of them another'
                )
        return self


class Consumer(_Section):
    """One named use of the stream.

    A turn takes the heads of up to ``group`` lanes, at most ``turn_events`` events and ``turn_bytes`` bytes; a lane is
    due when it has ``turn_events`` events or its oldest is ``linger`` old; others that wait go along, without `linger` long and short ones apart while few wait. A claim ends after ``lease`` unless renewed;
    renewing stops after ``turn_limit``. A lane with more than ``lane_bytes`` is detached.
    """

    handler: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    topic: Literal["datastream", "eventstream"] = "datastream"
    snapshot: bool | None = None
    group: Annotated[int, Field(ge=1, le=10_000)] = 1
    turn_events: Annotated[int, Field(ge=1, le=100_000)] = 1000
    turn_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    turn_limit: Duration = "5m"
    linger: Duration = "0s"
    lease: Duration = "10s"
    lane_bytes: Annotated[int, Field(ge=1024 * 1024)] = 16 * 1024 * 1024
    max_failures: Annotated[int, Field(ge=0, le=1_000_000)] = 12
    start: Literal["earliest", "latest"] = "earliest"

    @model_validator(mode="after")
    def _snapshots_of_changes(self) -> Consumer:
        if self.topic == "eventstream" and self.snapshot:
            raise ValueError("snapshots are of rows, and eventstream has none: leave out snapshot")
        return self

    @property
    def takes_snapshots(self) -> bool:
        """True when it gets the rows that snapshots read: by default our own sinks alone."""
        return self.handler in (INDEX, STAGE) if self.snapshot is None else self.snapshot


class Tasks(_Section):
    """Ordinary Celery tasks in merchants' lanes, sent with ``queue="tasks.m.<merchant>"``; ``include`` names their modules.

    After a worker dies its lanes wait for ``lease``. A task that takes longer than ``turn_limit`` loses its lane: it is
    begun again elsewhere.
    """

    include: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")], ...] = ()
    lease: Duration = "10s"
    turn_limit: Duration = "5m"


class Search(_Section):
    """Elasticsearch: shards and replicas of a new index, and the pace of refreshes on demand."""

    shards: Annotated[int, Field(ge=1, le=100)] = 1
    replicas: Annotated[int, Field(ge=0, le=5)] = 1
    refresh_interval: Duration = "75ms"


class Warehouse(_Section):
    """Redshift: schema (default: the deployment's name), and when waiting parts are loaded."""

    warehouse_schema: Annotated[Name | None, Field(alias="schema")] = None
    load_after: Duration = "10s"
    load_bytes: Annotated[int, Field(ge=1)] = 64 * 1024 * 1024
    iam_role: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_+=,.@-]+$")] | None = None


class Configuration(_Section):
    """The whole of ``pipeline.toml``."""

    deployment: Deployment
    sources: dict[Name, Source]
    consumers: dict[Name, Consumer] = {}
    tasks: Tasks = Tasks()
    search: Search = Search()
    warehouse: Warehouse = Warehouse()

    @model_validator(mode="after")
    def _enough_partitions(self) -> Configuration:
        if self.deployment.min_insync_replicas > self.deployment.replication_factor:
            raise ValueError("deployment.min_insync_replicas is above deployment.replication_factor")
        topics = self.deployment
        if topics.eventstream.topic in {
            topics.datastream.topic,
            topics.snapshots.topic,
            topics.progress.topic,
        }:
            raise ValueError("deployment.eventstream must be a topic of its own")
        return self

    @model_validator(mode="after")
    def _queues_of_their_own(self) -> Configuration:
        if taken := sorted(self.consumers.keys() & _OUR_QUEUES):
            raise ValueError(f"no consumer may be called {taken[0]}: a queue of ours has that name")
        return self

    @model_validator(mode="after")
    def _a_role_to_copy_with(self) -> Configuration:
        if self.loads and self.warehouse.iam_role is None:
            raise ValueError("needs warehouse.iam_role: the role with which Redshift's COPY reads the bucket")
        return self

    @property
    def loads(self) -> bool:
        """True when some consumer stages rows for the warehouse, so that they have to be loaded."""
        return any(consumer.handler == STAGE for consumer in self.consumers.values())

    def type_of(self, source: str, table: str) -> str:
        """The document type of a captured table."""
        return self.sources[source].tables[table].type or table.split(".", 1)[1]


class Settings(BaseModel):
    """Configuration and environment together: what every process starts from."""

    model_config = ConfigDict(frozen=True)

    path: Path
    configuration: Configuration
    environment: Environment

    @property
    def deployment(self) -> str:
        """The deployment's name: prefix of everything this deployment owns."""
        return self.configuration.deployment.name

    @property
    def datastream(self) -> Topic:
        """The topic of row changes."""
        return self.configuration.deployment.datastream

    @property
    def snapshots(self) -> Topic:
        """The topic of rows read by snapshots."""
        return self.configuration.deployment.snapshots

    def topics_of(self, consumer: str) -> tuple[Topic, ...]:
        """What a consumer reads: changes or domain events, and behind them the rows of snapshots if it takes any."""
        configured = self.consumer(consumer)
        if configured.topic == "eventstream":
            return (self.configuration.deployment.eventstream,)
        return (self.datastream, self.snapshots) if configured.takes_snapshots else (self.datastream,)

    @property
    def warehouse_schema(self) -> str:
        """The schema of the tables in Redshift."""
        return self.configuration.warehouse.warehouse_schema or self.deployment

    @property
    def copy_role(self) -> str:
        """The role with which COPY reads the bucket; ConfigurationError when there is none."""
        role = self.configuration.warehouse.iam_role
        if role is None:
            raise ConfigurationError((f"{self.path}: warehouse.iam_role is required to load",))
        return role

    def consumer(self, name: str) -> Consumer:
        """The settings of one consumer; ConfigurationError names those there are."""
        return _named(self.configuration.consumers, name, "consumer")

    def source(self, name: str) -> Source:
        """The settings of one source; ConfigurationError names those there are."""
        return _named(self.configuration.sources, name, "source")

    def source_url(self, name: str) -> str:
        """The URL of a source database."""
        self.source(name)
        return self.environment.source_urls[name].get_secret_value()


def _named(known: Mapping[str, _T], name: str, what: str) -> _T:
    if name not in known:
        raise ConfigurationError(
            (f'no {what} is named "{name}"; pipeline.toml has: {", ".join(sorted(known))}',)
        )
    return known[name]


def load(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """Read and check everything; ConfigurationError lists every problem at once.

    `environ` is the process environment unless given (then ``.env`` is not read), `directory` the working directory.
    """
    directory = directory or Path.cwd()
    variables = dict(environ) if environ is not None else _process_environment(directory)
    path = directory / variables.get("PIPELINE_CONFIG", "pipeline.toml")
    configuration, sources, problems = _configuration(path)
    found, more = read_environment(variables, sources)
    if configuration is None or found is None:
        raise ConfigurationError(tuple(problems + more))
    return Settings(path=path, configuration=configuration, environment=found)


def source_url_of(name: str) -> str | None:
    """The URL of a source before there is a ``pipeline.toml``: from the process environment, or ``.env``."""
    return _process_environment(Path.cwd()).get(f"{name.upper()}_DATABASE_URL")


def _process_environment(directory: Path) -> dict[str, str]:
    file = {name: value for name, value in dotenv_values(directory / ".env").items() if value is not None}
    for name, value in file.items():
        os.environ.setdefault(name, value)
    if "SSL_CERT_FILE" in file:
        # The one exception: machines set it for all their programs, and .env's bundle holds those authorities too.
        os.environ["SSL_CERT_FILE"] = file["SSL_CERT_FILE"]
    return dict(os.environ)


def _configuration(path: Path) -> tuple[Configuration | None, list[str], list[str]]:
    """The configuration or None, the sources it names even when it is wrong, and what is wrong with it."""
    try:
        text = path.read_text()
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        hint = "set PIPELINE_CONFIG or run in the directory of pipeline.toml"
        return None, [], [f"{path}: cannot be read: {reason}; {hint}"]
    except tomllib.TOMLDecodeError as error:
        return None, [], [f"{path}: {error}"]
    named = data.get("sources")
    sources = [name for name in named if NAME.fullmatch(name)] if isinstance(named, dict) else []
    try:
        return Configuration.model_validate(data), sources, []
    except ValidationError as error:
        return None, sources, [_toml_problem(path, text, problem) for problem in error.errors()]


def _toml_problem(path: Path, text: str, problem: Any) -> str:
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "is not a setting of this version"
    elif problem["type"] == "missing":
        message = "is required"
    return f"{path}:{line_of(text, location)}: {'.'.join(location) or 'file'} {sentence(message)}"
