"""Fault points, the statement log, TLS and isolation, on a stand-in of the test's own over the stack's services."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest
import redshift_connector
import zstandard
from redshift_connector.core import Connection
from redshift_connector.error import Error, ProgrammingError

from devstack.process import wait_until
from devstack.redshift import faults
from devstack.redshift.statement_log import Executed, read_log
from tests.conftest import REPO, connect_warehouse, unique
from tests.integration.redshift_sockets import abandoned_sockets, refused_connection

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.integration

PASSWORD = "only-for-this-test"
ROLE = "arn:aws:iam::123456789012:role/loader"


@dataclass(frozen=True, slots=True)
class StandIn:
    """A running stand-in: its URL and state directory."""

    url: str
    state: Path

    def connect(self) -> Connection:
        return connect_warehouse(self.url)

    def log(self, *verbs: str) -> list[Executed]:
        return [line for line in read_log(self.state) if line.verb in verbs]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(postgres_url: str, s3_url: str, state: Path, *options: str) -> Iterator[StandIn]:
    parts, port = urlsplit(postgres_url), free_port()
    with psycopg.connect(postgres_url) as superuser:
        row = superuser.execute("show unix_socket_directories").fetchone()
    assert row is not None
    arguments = {
        "--port": port,
        "--pg-host": str(row[0]),
        "--pg-port": parts.port,
        "--pg-user": parts.username,
        "--pg-password-env": "STANDIN_PG_PASSWORD",
        "--s3": s3_url,
        "--state": state,
    }
    words = [str(word) for pair in arguments.items() for word in pair]
    environment = {
        **os.environ,
        "STANDIN_PG_PASSWORD": parts.password or "",
        "REDSHIFT_STANDIN_PASSWORD": PASSWORD,
    }
    command = [sys.executable, "-m", "devstack.redshift", "serve", *words, *options]
    with subprocess.Popen(command, cwd=REPO, env=environment) as process:
        try:
            assert wait_until(lambda: process.poll() is not None or answers(port), 30)
            yield StandIn(f"redshift://awsuser:{PASSWORD}@localhost:{port}/warehouse", state)
        finally:
            process.terminate()
    assert process.returncode == 0, "SIGTERM ends it in good order"


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start(
    postgres_url: str,
    warehouse_url: str,
    variables: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., StandIn]]:
    """Starts a stand-in whose certificate this process trusts."""
    with ExitStack() as stack:

        def begin(*options: str) -> StandIn:
            context = running(postgres_url, variables["AWS_ENDPOINT_URL"], tmp_path, *options)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            return stack.enter_context(context)

        yield begin


@pytest.fixture
def standin(start: Callable[..., StandIn]) -> StandIn:
    return start()


@pytest.fixture
def manifest(s3_client: "S3Client", s3_prefix: str, variables: Mapping[str, str]) -> str:
    """A manifest of one part with the rows 1 to 5000."""
    bucket = variables["S3_BUCKET"]
    body = zstandard.compress("".join(f"{n}\n" for n in range(1, 5001)).encode())
    part, key = f"{s3_prefix}part", f"{s3_prefix}manifest"
    entry = {"url": f"s3://{bucket}/{part}", "mandatory": True, "meta": {"content_length": len(body)}}
    s3_client.put_object(Bucket=bucket, Key=part, Body=body)
    s3_client.put_object(Bucket=bucket, Key=key, Body=msgspec.json.encode({"entries": [entry]}))
    return f"s3://{bucket}/{key}"


@contextmanager
def schema(standin: StandIn) -> Iterator[str]:
    """A fresh schema, dropped afterwards."""
    name = unique("t")
    run(standin, f"create schema {name}")
    yield name
    run(standin, f"drop schema {name} cascade")


def run(standin: StandIn, statement: str) -> None:
    with standin.connect() as connection:
        connection.cursor().execute(statement)
        connection.commit()


@pytest.fixture
def table(standin: StandIn) -> Iterator[str]:
    with schema(standin) as name:
        run(standin, f"create table {name}.t (id bigint)")
        yield f"{name}.t"


def load(connection: Connection, table: str, manifest: str) -> None:
    cursor = connection.cursor()
    cursor.execute(f"copy {table} (id) from '{manifest}' iam_role '{ROLE}' csv zstd manifest null 'Nabc1'")
    connection.commit()


def rows(standin: StandIn, table: str) -> int:
    with standin.connect() as connection:
        cursor = connection.cursor()
        cursor.execute(f"select count(*) from {table}")
        (counted,) = cursor.fetchall()
        return int(counted[0])


def test_tls_names_the_host_and_plain_text_is_refused(standin: StandIn) -> None:
    port = urlsplit(standin.url).port

    def connect(host: str, *, ssl: bool) -> Connection:
        return redshift_connector.connect(
            host=host,
            port=port,
            database="warehouse",
            user="awsuser",
            password=PASSWORD,
            ssl=ssl,
            sslmode="verify-full",
        )

    connect("127.0.0.1", ssl=True).close()
    assert refused_connection(lambda: connect("localhost", ssl=False))


def test_a_certificate_of_another_authority_is_not_trusted(
    standin: StandIn, variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", variables["SSL_CERT_FILE"])
    assert "certificate verify failed" in refused_connection(standin.connect)


def lose_connection(standin: StandIn, table: str, manifest: str) -> None:
    """Load, and be cut off. The driver has no one class for a lost connection."""
    with pytest.raises((Error, OSError)):
        load(standin.connect(), table, manifest)


@pytest.mark.parametrize(
    ("fault", "left"),
    [(faults.DROP_COMMIT_ANSWER, 5000), (faults.DROP_BEFORE_COMMIT, 0), (faults.KILL_DURING_COPY, 0)],
)
def test_a_fault_fires_once_and_leaves(
    standin: StandIn, table: str, manifest: str, fault: str, left: int
) -> None:
    faults.arm(standin.state, fault)
    with abandoned_sockets():
        lose_connection(standin, table, manifest)
    assert faults.armed(standin.state, fault) == 0
    assert rows(standin, table) == left
    with standin.connect() as connection:
        load(connection, table, manifest)
    assert rows(standin, table) == left + 5000


def test_a_readers_commit_does_not_use_up_a_fault(standin: StandIn, table: str) -> None:
    faults.arm(standin.state, faults.DROP_COMMIT_ANSWER)
    with standin.connect() as connection:
        connection.cursor().execute(f"select count(*) from {table}")
        connection.commit()
    assert faults.armed(standin.state, faults.DROP_COMMIT_ANSWER) == 1


def test_faults_are_armed_from_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "devstack.redshift", "fault", "kill-during-copy", "--count", "2"]
    subprocess.run([*command, "--state", str(tmp_path)], cwd=REPO, check=True)
    assert faults.armed(tmp_path, faults.KILL_DURING_COPY) == 2
    assert [faults.take(tmp_path, faults.KILL_DURING_COPY) for _ in range(3)] == [True, True, False]
    with pytest.raises(ValueError, match="no fault point"):
        faults.arm(tmp_path, "unknown")


def test_the_log_tells_what_ran_and_how_it_ended(standin: StandIn, table: str, manifest: str) -> None:
    with standin.connect() as connection:
        load(connection, table, manifest)
        with pytest.raises(Error):
            load(connection, table, manifest + ".gone")
        connection.rollback()
        cursor = connection.cursor()
        cursor.execute(f"insert into {table} values (%s)", (4711,))
        connection.commit()
    good, bad = standin.log("COPY")
    assert (good.rows, good.error, bad.error) == (5000, None, "XX000")
    assert [line.verb for line in standin.log("INSERT", "ROLLBACK")] == ["ROLLBACK", "INSERT"]
    assert "4711" not in (standin.state / "statements.log").read_text()


def test_error_1023_under_serializable(start: Callable[..., StandIn]) -> None:
    """Two transactions read both tables and write one each: only one may commit."""
    standin = start("--isolation", "serializable")
    with schema(standin) as name, standin.connect() as one, standin.connect() as two:
        for table in ("a", "b"):
            run(standin, f"create table {name}.{table} (n int)")
        for connection in (one, two):
            counts = f"(select count(*) from {name}.a), (select count(*) from {name}.b)"
            connection.cursor().execute(f"select {counts}")
        one.cursor().execute(f"insert into {name}.a values (1)")
        two.cursor().execute(f"insert into {name}.b values (1)")
        one.commit()
        with pytest.raises(ProgrammingError) as failure:
            two.commit()
        assert (failure.value.args[0]["C"], failure.value.args[0]["M"]) == ("XX000", "1023")
