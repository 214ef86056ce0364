"""``pipeline demo traffic`` as a person runs it: the company's databases get the changes that it says it made."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

import psycopg
import pytest

from devstack.postgres import drop_database
from example.schema import create
from example.seed import Size, seed
from example.tables import SOURCES
from tests.conftest import REPO, unique

pytestmark = pytest.mark.integration

FEW = Size(
    merchants=20, customers=100, transactions=100, refunds=20, disputes=10, payouts=20, applications=20
)


@pytest.fixture
def writers(postgres_url: str, variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The variables that name four databases of the test's own, with a few rows."""
    prefix = unique("demo") + "_"
    urls = create(postgres_url, variables["EXAMPLE_WRITER_URL"], prefix)
    seed(urls, FEW)
    yield {f"{source.upper()}_WRITER_URL": url for source, url in urls.items()}
    for source in SOURCES:
        drop_database(postgres_url, prefix + source)


def traffic(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run ``pipeline demo traffic``; returns exit code and all it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "demo", "traffic", *arguments],
        cwd=REPO,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def test_it_writes_to_all_databases_and_says_what(writers: dict[str, str]) -> None:
    before = rows(writers)
    code, told = traffic(writers, "--rate", "200", "--merchants", "20", "--seconds", "2", "--seed", "3")
    assert code == 0, told
    for source in SOURCES:
        assert source in told
    assert "commits" in told
    assert rows(writers) > before


def rows(writers: Mapping[str, str]) -> int:
    """Transactions in the two gateways: traffic deletes none of those that it finds there."""
    found = 0
    for name in ("GATEWAY0_WRITER_URL", "GATEWAY1_WRITER_URL"):
        with psycopg.connect(writers[name]) as session:
            row = session.execute("SELECT count(*) FROM transactions").fetchone()
            found += row[0] if row else 0
    return found


@pytest.mark.parametrize("arguments", [("--rate", "0"), ("--merchants", "5"), ("--seconds", "soon")])
def test_wrong_use_is_told_and_writes_nothing(
    variables: Mapping[str, str], arguments: tuple[str, str]
) -> None:
    code, told = traffic(variables, *arguments)
    assert code == 2
    assert arguments[0] in told
