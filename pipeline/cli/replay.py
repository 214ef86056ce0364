"""``pipeline replay CONSUMER``."""

from __future__ import annotations

import getpass
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline import settings as configuration
from pipeline.bridge.ranges import RangeReader
from pipeline.cli.importing import working_directory
from pipeline.control import actions
from pipeline.control.database import ControlDatabase, require_migrated
from pipeline.domain.routing import is_merchant, partition_of
from pipeline.lanes.claim import TurnLimits
from pipeline.lanes.handlers import handler_of
from pipeline.lanes.turn import Backoff
from pipeline.replay.lines import Lines, write
from pipeline.replay.range import Place, Replayable, place, ranges
from pipeline.replay.summary import Source, Summary, Window, count, run
from pipeline.replay.turns import Told, Turns
from pipeline.settings import Settings

_SHOWN = 50


class _Place(click.ParamType[Place]):
    """A place in a topic; None is its `edge`."""

    name = "place"

    def __init__(self, edge: str) -> None:
        self._edge = edge

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """As ``range.place`` reads it."""
        try:
            return place(value, edge=self._edge) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("consumer")
@click.option(
    "--from", "first", type=_Place("beginning"), help='"beginning", ISO time, OFFSET or PARTITION:OFFSET,…'
)
@click.option("--to", "end", type=_Place("end"), help='"end", or as --from; what stands there is left out.')
@click.option(
    "--merchant", "merchants", multiple=True, help="Only this merchant; may be given several times."
)
@click.option("--handler", help="module:function to run instead of the consumer's own.")
@click.option(
    "--file", type=click.File("rb"), help="Read events from this file, one per line, instead of the topic."
)
@click.option(
    "--to-file", type=click.Path(path_type=Path), help="Write the events into this new file; run nothing."
)
@click.option(
    "--attempts", default=5, show_default=True, help="Tries before a merchant, or the sink, is given up."
)
@click.option("--dry-run", is_flag=True, help="Count the events per merchant and type; run nothing.")
@click.option("--reason", default="", help="Why; kept in the audit. Required when the function is run.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def replay(
    consumer: str,
    first: Place,
    end: Place,
    merchants: tuple[str, ...],
    handler: str | None,
    file: BinaryIO | None,
    to_file: Path | None,
    attempts: int,
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Run CONSUMER's function again over a part of its topic, or over a file of events.

    It reads from the oldest record that Kafka has to the newest, unless --from and --to say otherwise. Offsets, lanes
    and set-aside events of the live consumer stay as they are. Exits with 1 when a merchant or the sink was given up.
    """
    settings, wanted = configuration.load(), frozenset(merchants)
    path, runs = handler or settings.consumer(consumer).handler, not dry_run and to_file is None
    _require(wanted, reason=not runs or bool(reason), whole=file is None or first is end is None)
    summary = Summary()
    with ExitStack() as stack:
        source: Source
        if file is not None:
            source = Lines(
                file, wanted, partial(partition_of, partitions=settings.topics_of(consumer)[0].partitions)
            )
        else:
            source = _records(settings, consumer, stack, first, end, wanted)
        if runs:
            stack.enter_context(working_directory())  # a handler may import more when it runs
            turns = _turns(settings, consumer, path, attempts)
            _record(
                settings,
                consumer,
                reason,
                {"handler": path, "merchants": sorted(wanted), "from": dict(source.positions)},
            )
            _work(source, partial(run, turns), summary, lambda: turns.unavailable)
        else:
            keep = partial(write, stack.enter_context(_created(to_file))) if to_file else lambda _: None
            _work(source, partial(count, summary, keep), summary, lambda: "")
        _show(source, summary, as_json)
    sys.exit(0 if summary.clean else 1)


def _require(merchants: frozenset[str], *, reason: bool, whole: bool) -> None:
    for merchant in merchants:
        if not is_merchant(merchant):
            raise click.UsageError(f'--merchant: "{merchant}" is no merchant id')
    if not whole:
        raise click.UsageError("--file is read whole: --from and --to are places in a topic")
    if not reason:
        raise click.UsageError("--reason is required: a replay writes into sinks again")


def _records(
    settings: Settings, consumer: str, stack: ExitStack, first: Place, end: Place, merchants: frozenset[str]
) -> Replayable:
    topic, environment = settings.topics_of(consumer)[0], settings.environment
    reader = RangeReader(environment.kafka_bootstrap_servers, topic.topic, environment.kafka_security)
    stack.callback(reader.close)
    partitions = {partition_of(merchant, topic.partitions) for merchant in merchants} or range(
        topic.partitions
    )
    return Replayable(reader, ranges(reader, first, end, sorted(partitions)), topic.partitions, merchants)


def _turns(settings: Settings, consumer: str, path: str, attempts: int) -> Turns:
    return Turns(
        consumer,
        handler_of(path, f"consumers.{consumer}.handler"),
        TurnLimits.of(settings.consumer(consumer)),
        partitions=settings.topics_of(consumer)[0].partitions,
        attempts=attempts,
        backoff=Backoff(random.SystemRandom().random),
        pause=time.sleep,
    )


def _record(settings: Settings, consumer: str, reason: str, details: dict[str, object]) -> None:
    with closing(ControlDatabase(settings.environment.control_database_url.get_secret_value())) as database:
        require_migrated(database)
        actions.record(
            database, actor=getpass.getuser(), verb="replay", subject=consumer, reason=reason, details=details
        )


def _created(path: Path) -> BinaryIO:
    """A new file that only its owner reads: it holds what merchants' rows hold."""
    try:
        path.touch(0o600, exist_ok=False)
    except FileExistsError:
        raise click.UsageError(f"--to-file: {path} exists already") from None
    return path.open("wb")


def _work(
    source: Source, work: Callable[[Window], Iterator[Told]], summary: Summary, given_up: Callable[[], str]
) -> None:
    columns = (
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=source.total or None)
        try:
            for window in source.windows():
                for told in work(window):
                    summary.tell(told)
                    if told.what == "failed":
                        progress.console.print(_sentence(told), markup=False, soft_wrap=True)
                progress.update(bar, completed=source.read)
                summary.stopped = given_up()
                if summary.stopped:
                    return
        except KeyboardInterrupt:
            summary.stopped = "interrupted"


def _sentence(told: Told) -> str:
    record = told.record
    place = f"partition {record.partition} offset {record.offset}"
    rest = "; the rest of this merchant is skipped" if told.what == "failed" else ""
    return f"{told.what}: merchant {record.merchant or '?'}, {place}: {told.reason}{rest}"


def _show(source: Source, summary: Summary, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary.as_json(source)))
        return
    console = Console()
    if summary.kinds:
        table = Table("merchant", "type")
        table.add_column("events", justify="right")
        for (merchant, type_), found in sorted(summary.kinds.items()):
            table.add_row(merchant, type_, f"{found:,}")
        console.print(table)
    for told in summary.named[:_SHOWN]:
        if told.what == "rejected":
            console.print(_sentence(told), markup=False, soft_wrap=True)
    counted = [
        (name, number) for name, number in (*summary.counts.items(), *source.left_out.items()) if number
    ]
    seen = sum(summary.kinds.values())
    console.print(
        ", ".join(f"{number:,} {name}" for name, number in [*counted, ("events", seen)] if number)
        or "no events"
    )
    if summary.stopped:
        places = ",".join(f"{partition}:{offset}" for partition, offset in sorted(source.positions.items()))
        console.print(f"stopped: {summary.stopped}; go on with --from {places}", markup=False, soft_wrap=True)
