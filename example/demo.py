"""The whole way in one go: ``make demo``.

Makes the payment company anew, captures it, keeps it busy, kills a relay, a bridge and a worker with -9 on the way,
waits until everything has arrived, and proves that both sinks equal the databases.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psycopg
from elasticsearch import Elasticsearch
from rich.console import Console
from rich.live import Live
from rich.table import Table

from devstack import dotenv
from devstack.process import wait_until
from devstack.supervisor import Supervisor, read_procfile
from example import schema, seed, traffic
from example.fresh import forget
from example.latency import Watch, search_watch, warehouse_watch
from example.report import Report
from example.tables import SOURCES
from pipeline import settings as configuration
from pipeline.bridge.progress import accepted, end_offsets, lag
from pipeline.settings import Settings

REPO = Path(__file__).resolve().parent.parent
LOGS = REPO / ".devstack" / "logs" / "demo"
LOAD = traffic.Load(rate=150, seconds=30, seed=6, merchants=100, probe_every=4)
KILLED = ("capture_gateway0", "bridge_search", "worker_search")
ARRIVAL = 120.0  # seconds that the last change may take before the demo gives up

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass
class Progress:
    """What the live table shows while traffic runs and arrives."""

    settings: Settings
    report: Report | None = None
    killed: list[str] = field(default_factory=list)

    def table(self) -> Table:
        """Counts along the way; read from Kafka and the control database, not from the processes."""
        shown = Table(title="A payment company at work", caption=self._caption())
        for title in (
            "committed changes",
            "published",
            "accepted by search",
            "staged for warehouse",
            "rows loaded",
        ):
            shown.add_column(title, justify="right")
        published, search, warehouse, loaded = self.counts()
        committed = f"{self.report.total:,}" if self.report else "-"
        shown.add_row(committed, f"{published:,}", f"{search:,}", f"{warehouse:,}", f"{loaded:,}")
        return shown

    def counts(self) -> tuple[int, int, int, int]:
        """Records published, accepted by search, accepted by the warehouse, and rows loaded (folded per key).

        What detached lanes have left counts as accepted.
        """
        search, warehouse = lag(self.settings, "search"), lag(self.settings, "warehouse")
        published = sum(end for _, end in search.values())
        done = [sum(committed or 0 for committed, _ in each.values()) for each in (search, warehouse)]
        return published, done[0], done[1], _rows_loaded(self.settings)

    def accepted(self) -> bool:
        """Everything published is accepted by both consumers."""
        consumers = ("search", "warehouse")
        return all(accepted(self.settings, name, end_offsets(self.settings, name)) for name in consumers)

    def arrived(self) -> bool:
        """Everything published is accepted, and no part waits to be loaded."""
        return self.accepted() and not _parts_waiting(self.settings)

    def _caption(self) -> str:
        return "killed with -9: " + ", ".join(self.killed) if self.killed else ""


def main() -> int:
    """Run the demo; 0 only if both sinks equal the databases by both checks."""
    began = time.monotonic()
    os.chdir(REPO)
    settings = configuration.load()
    admin = os.environ["DEVSTACK_POSTGRES_URL"]
    with _step("Fresh databases, topic, indices and tables; rows that are older than the pipeline"):
        urls = schema.create(admin, os.environ["EXAMPLE_WRITER_URL"])
        rows = seed.seed(urls)
        forget(settings, admin)
    console.print(f"  {sum(rows.values()):,} rows in {', '.join(SOURCES)}")
    environment = {**dotenv.read(REPO / ".env"), **os.environ}
    with Supervisor(read_procfile(REPO / "Procfile"), environment, LOGS, REPO) as supervisor:
        ok = _run(settings, supervisor, urls)
        with _step("Stopping the pipeline's processes (SIGTERM)"):
            stubborn = supervisor.stop(timeout=10)
    if stubborn:
        console.print(f"  [red]had to be killed after 10 s: {', '.join(stubborn)}")
    console.print(f"\n{'[green]Everything is equal' if ok else '[red]Not everything is equal'}[/]"
                  f" after {time.monotonic() - began:.0f} s. Services are still up.")  # fmt: skip
    console.print("  make run            the pipeline and its pages, on these databases")
    console.print(f"  Flower              http://127.0.0.1:{environment['FLOWER_PORT']}")
    console.print(f"  count of merchant 6 http://127.0.0.1:{environment['PORT']}/6/transaction/_count")
    console.print(
        "  pipeline status     one screen;  pipeline verify: the proof again;  make down: stop the services"
    )
    return 0 if ok else 1


def _run(settings: Settings, supervisor: Supervisor, urls: Mapping[str, str]) -> bool:
    with _step("pipeline migrate; capture install in each database"):
        supervisor.release()
        for source in SOURCES:
            _pipeline("capture", "install", source)
    with _step("Starting the pipeline's processes"):
        for name in supervisor.names:
            supervisor.start(name)
    progress = Progress(settings)
    with _step("Snapshots of the rows that are older than the pipeline"):
        _snapshot(progress)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "probes"
        search, warehouse = search_watch(settings, log), warehouse_watch(settings, log)
        _busy(supervisor, urls, log, progress)
        arrived = wait_until(lambda: not (search.outstanding() or warehouse.outstanding()), ARRIVAL)
        search.finish()
        warehouse.finish()
    if not arrived:
        console.print(
            f"[red]{search.outstanding()} changes not searchable, {warehouse.outstanding()} not loaded"
        )
    _print_figures(progress, search, warehouse)
    _print_answer(settings)
    verified = _pipeline("verify", check=False)
    console.print("The same question asked without any of the pipeline's code (example/check.py):")
    checked = subprocess.run([sys.executable, "-m", "example.check"], check=False).returncode
    return arrived and verified == 0 and checked == 0


def _snapshot(progress: Progress) -> None:
    """Rows that are older than the pipeline; ends when both sinks have accepted them."""
    for source in SOURCES:
        _pipeline("capture", "snapshot", "--no-wait", source)
    if not wait_until(lambda: _snapshots_done(progress.settings) and progress.accepted(), ARRIVAL, 0.5):
        raise TimeoutError(
            f"the snapshots have not arrived after {ARRIVAL:.0f} s; see {LOGS} and pipeline status"
        )


def _busy(supervisor: Supervisor, urls: Mapping[str, str], log: Path, progress: Progress) -> None:
    """Traffic, with each process of KILLED dying once. Ends when everything has arrived, or ARRIVAL is over."""
    load = replace(LOAD, probe=log)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            progress.report = traffic.run(urls, load, lambda report: setattr(progress, "report", report))
        except Exception as error:  # noqa: BLE001  raised again below, in the thread that waits
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    began = time.monotonic()
    with Live(progress.table(), console=console, auto_refresh=False) as live:
        while thread.is_alive() or not progress.arrived():
            if time.monotonic() - began > LOAD.seconds + ARRIVAL:
                break
            _kill_next(supervisor, progress, time.monotonic() - began)
            live.update(progress.table(), refresh=True)
            thread.join(timeout=0.5)
        live.update(progress.table(), refresh=True)
    thread.join()
    if failures:
        raise failures[0]


def _kill_next(supervisor: Supervisor, progress: Progress, elapsed: float) -> None:
    """Spread over the traffic: the first at a quarter, the others at equal distances."""
    number = len(progress.killed)
    if number < len(KILLED) and elapsed > LOAD.seconds * (number + 1) / (len(KILLED) + 1):
        supervisor.signal(KILLED[number], signal.SIGKILL)
        progress.killed.append(KILLED[number])


def _print_figures(progress: Progress, search: Watch, warehouse: Watch) -> None:
    published, accepted, _, loaded = progress.counts()
    console.print(
        f"  captured {published:,} events, indexed {accepted:,}, loaded {loaded:,} rows (newest of each key)"
    )
    for name, watch in (("searchable", search), ("in the warehouse", warehouse)):
        console.print(
            f"  commit → {name}: p50 {watch.quantile(50) * 1000:,.0f} ms, p99 {watch.quantile(99) * 1000:,.0f} ms"
            f" ({len(watch.seconds):,} commits seen by an outside poll, the kills included)"
        )


def _print_answer(settings: Settings) -> None:
    port = settings.environment.port
    address = f"http://127.0.0.1:{port}/6/transaction/_count"
    if wait_until(lambda: _answers(port), 20):
        console.print(f"  GET /6/transaction/_count → {httpx.get(address).text}")
    with Elasticsearch(settings.environment.elasticsearch_url.get_secret_value()) as client:
        found = client.search(
            index=f"{settings.deployment}-transaction-read",
            routing="6",
            query={"bool": {"filter": [{"term": {"cdc.merchant": "6"}}, {"term": {"cdc.deleted": False}},
                                       {"term": {"status": "settled"}}]}},
            sort=[{"created_at": "desc"}],
            size=3,
        )["hits"]["hits"]  # fmt: skip
    shown = Table(title="Merchant 6 searches: status is settled, newest first")
    for title in ("id", "created_at", "amount", "currency", "status"):
        shown.add_column(title)
    for hit in found:
        shown.add_row(
            *(str(hit["_source"].get(name)) for name in ("id", "created_at", "amount", "currency", "status"))
        )
    console.print(shown)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.HTTPError:
        return False


def _pipeline(*arguments: str, check: bool = True) -> int:
    return subprocess.run([sys.executable, "-m", "pipeline", *arguments], check=check).returncode


def _query(settings: Settings, statement: str) -> int:
    with psycopg.connect(settings.environment.control_database_url.get_secret_value()) as session:
        row = session.execute(statement).fetchone()
        return int(row[0]) if row else 0


def _rows_loaded(settings: Settings) -> int:
    return _query(settings, "SELECT coalesce(sum(applied), 0) FROM loads WHERE status = 'loaded'")


def _parts_waiting(settings: Settings) -> int:
    return _query(
        settings,
        "SELECT count(*) FROM parts LEFT JOIN loads USING (batch_id) WHERE loads.status IS DISTINCT FROM 'loaded'",
    )


def _snapshots_done(settings: Settings) -> bool:
    return not _query(settings, "SELECT count(*) FROM snapshots WHERE status <> 'done'")


@contextmanager
def _step(text: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(text):
        yield
    console.print(f"[green]✓[/] {text} [dim]{time.monotonic() - began:.1f} s[/]")


if __name__ == "__main__":
    sys.exit(main())
