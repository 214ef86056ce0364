"""The listening server: makes the database ready, then takes connections until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import itertools
import signal
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import psycopg
from botocore.config import Config

from devstack.redshift import tls
from devstack.redshift.backend import PostgresAddress
from devstack.redshift.rewrite import SNAPSHOT
from devstack.redshift.session import Session
from devstack.redshift.settings import DATABASE, Cluster
from devstack.redshift.statement_log import StatementLog

_READ_BUFFER = 1 << 20
_ALLOCATIONS_PER_COLLECTION = 50_000  # at the default of 700, COPY's rows spend a tenth of their time in it
_CATALOG_LOCK = 0x5245_4453
_CATALOG = Path(__file__).with_name("catalog.sql")


@dataclass(frozen=True, slots=True)
class Options:
    """What `serve` was started with."""

    port: int
    postgres: PostgresAddress
    s3_url: str
    state: Path
    password: str = field(repr=False)
    isolation: str = SNAPSHOT


async def serve(options: Options) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT. Binds only when it can answer."""
    options.state.mkdir(parents=True, exist_ok=True)
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION)
    cluster = _cluster(options)
    await asyncio.to_thread(_prepare, options.postgres)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await _listen(cluster, options.port, stop)


async def _listen(cluster: Cluster, port: int, stop: asyncio.Event) -> None:
    numbers = itertools.count(1)
    sessions: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.add(task)
        task.add_done_callback(sessions.discard)
        await Session(cluster, next(numbers), reader, writer).run()

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=_READ_BUFFER)
    await stop.wait()
    server.close()
    for task in tuple(sessions):
        task.cancel()
    await asyncio.gather(*sessions, return_exceptions=True)


def _cluster(options: Options) -> Cluster:
    addressing = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 2})
    return Cluster(
        postgres=options.postgres,
        s3=boto3.session.Session().client("s3", endpoint_url=options.s3_url, config=addressing),
        state=options.state,
        tls=tls.server_context(options.state),
        log=StatementLog(options.state),
        isolation=options.isolation,
        password=options.password,
    )


def _prepare(address: PostgresAddress) -> None:
    """Make the database if it is missing, and Redshift's catalog in it."""
    with _connect(address, "postgres") as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_CATALOG_LOCK,))
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if not known:
            connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    with _connect(address, DATABASE) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CATALOG_LOCK,))  # two may start at once
        connection.execute(_CATALOG.read_bytes())


def _connect(address: PostgresAddress, database: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=address.directory,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname=database,
        autocommit=True,
    )
