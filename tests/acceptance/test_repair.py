"""Changes that left no event: a snapshot and the sweep behind it make both sinks equal to the source again.

Rows changed, deleted and added while a trigger was disabled; whole tables truncated; the relay killed on the way; traffic
goes on all the while.
"""

from collections.abc import Iterator

import psycopg
import pytest

from tests.acceptance.deployment import SOURCES, Deployment
from tests.acceptance.running import busy_deployment, findings
from tests.conftest import Stack

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def busy(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with busy_deployment(stack, tmp_path_factory.mktemp("repair"), "repair", seed=11) as one:
        yield one


def write(deployment: Deployment, source: str, *statements: str) -> None:
    """One transaction of the application's, which owns the tables."""
    with psycopg.connect(deployment.writer_url(source)) as session:
        for statement in statements:
            session.execute(statement.encode())


def notes(merchant: str, numbers: str) -> str:
    """An INSERT of notes with these numbers."""
    return (
        "INSERT INTO notes (merchant_id, number, step, body)"
        f" SELECT '{merchant}', n, 0, 'as it was' FROM unnest(ARRAY[{numbers}]) n"
    )


# Mutant: bridges take a sweep for any record without key (the phantom stays).
def test_silent_changes_are_repaired_and_vanished_rows_go(busy: Deployment) -> None:
    write(busy, "shard0", notes("silent", "1, 2, 3"))
    assert busy.verify("--source", "shard0", "--type", "note")["ok"]
    write(
        busy,
        "shard0",
        "ALTER TABLE notes DISABLE TRIGGER USER",
        "UPDATE notes SET body = 'changed in silence' WHERE merchant_id = 'silent' AND number = 1",
        "DELETE FROM notes WHERE merchant_id = 'silent' AND number = 2",
        notes("silent", "4"),
        "ALTER TABLE notes ENABLE TRIGGER USER",
    )
    report = busy.verify("--source", "shard0", "--merchant", "silent")
    assert {finding[2:] for finding in findings(report)} == {
        ("different", "silent", "silent:1"),
        ("phantom", "silent", "silent:2"),
        ("lost", "silent", "silent:4"),
    }

    busy.arm("capture_shard0", "snapshot.chunk:1")
    busy.run("capture", "snapshot", "shard0")
    busy.await_death("capture_shard0")
    report = busy.verify("--source", "shard0")
    assert report["ok"], report


# Mutant: as above.
def test_a_truncated_table_is_empty_in_both_sinks_and_only_that_shard(busy: Deployment) -> None:
    for source in SOURCES:
        write(busy, source, notes(f"emptied_{source}", "1, 2"))
    assert busy.verify("--type", "note")["ok"]
    write(busy, "shard1", notes("late", "1"), "TRUNCATE notes", notes("late", "2"))
    report = busy.verify()
    assert report["ok"], report
    assert report["notices"] == []
