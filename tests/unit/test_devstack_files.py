"""What the stack keeps in files: `.env`, ports, passwords."""

import os
import socket
from pathlib import Path

import pytest

from devstack import dotenv, passwords, ports, process


def test_lines_of_the_user_stay(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("MINE=1\n# a note\n")
    dotenv.write(path, {"A": "1"})
    dotenv.write(path, {"A": "2", "B": "3"})
    assert dotenv.read(path) == {"MINE": "1", "A": "2", "B": "3"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert dotenv.own_lines(path.read_text()) == ["MINE=1", "# a note"]
    dotenv.remove(path)
    assert path.read_text() == "MINE=1\n# a note\n"


def test_a_file_of_ours_alone_goes(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    dotenv.write(path, {"A": "1"})
    dotenv.remove(path)
    dotenv.remove(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "port"),
    [
        ("8000", 8000),
        ("127.0.0.1:9092", 9092),
        ("redis://:secret@127.0.0.1:6379/0", 6379),
        ("redshift://u:p@localhost:5439/warehouse", 5439),
        ("https://search.example.com:9200", None),
        ("kafka1:9092,kafka2:9092", None),
        ("", None),
    ],
)
def test_the_port_a_setting_names(value: str, port: int | None) -> None:
    assert ports.named(value) == port


def choose(path: Path, settings: dict[str, str], *running: str) -> dict[str, int]:
    return ports.choose(path, settings, lambda name: name in running, "owner")


def test_ports_stay_the_same(tmp_path: Path) -> None:
    chosen = choose(tmp_path / "ports.json", {})
    assert set(chosen) == set(ports.VARIABLES)
    assert len(set(chosen.values())) == len(chosen)
    assert choose(tmp_path / "ports.json", {}) == chosen


def test_a_port_that_is_taken_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    before = choose(tmp_path / "ports.json", {})
    with socket.socket() as other:
        other.bind(("127.0.0.1", before["redis"]))
        other.listen()
        after = choose(tmp_path / "ports.json", {})
        assert choose(tmp_path / "ports.json", {}, "redis")["redis"] == after["redis"], "ours, when it runs"
    assert after.pop("redis") != before.pop("redis")
    assert after == before


def test_a_port_named_by_a_setting_is_taken(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert choose(tmp_path / "ports.json", {"REDIS_URL": f"redis://127.0.0.1:{port}/0"})["redis"] == port


def test_passwords_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    made = passwords.load(path)
    assert passwords.load(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert made.redis not in repr(made)


def test_the_tail_begins_where_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\nnew\n")
    assert process.tail(log, 5, start=4) == ["new"]
    assert process.tail(log, 1) == ["new"]
    assert process.tail(tmp_path / "none", 5) == []


def test_a_process_is_known_by_its_command_line() -> None:
    assert process.argv_of(os.getpid())
    assert process.argv_of(2**22 + 1) == []
    assert process.resident(os.getpid()) > 0
