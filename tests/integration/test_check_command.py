"""Bad input and services that are away: every problem at once, a line each, no secrets, no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from pipeline.control.database import ControlDatabase, migrate
from tests.conftest import SourceDatabase, Stack

pytestmark = pytest.mark.integration

SECRET = "planted-s3cret"
NOWHERE = "127.0.0.1:1"  # a port on which nothing ever listens
TOML = """\
[deployment]
name = "checked"
datastream = { topic = "checked_by_a_test", partitions = 4 }

[sources.shard0.tables."public.steps"]
merchant = { column = "merchant_id" }
type = "step"

[consumers.search]
handler = "tasks.search:index"
"""
AWAY = {
    "CONTROL_DATABASE_URL": f"postgresql://pipeline:{SECRET}@{NOWHERE}/control",
    "SHARD0_DATABASE_URL": f"postgresql://pipeline:{SECRET}@{NOWHERE}/shard0",
    "KAFKA_BOOTSTRAP_SERVERS": NOWHERE,
    "REDIS_URL": f"redis://:{SECRET}@{NOWHERE}/0",
    "ELASTICSEARCH_URL": f"http://elastic:{SECRET}@{NOWHERE}",
    "REDSHIFT_URL": f"redshift://awsuser:{SECRET}@{NOWHERE}/warehouse",
}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Run:
    """Runs ``pipeline ...`` with all services there but `changed`; returns exit code and everything it printed."""
    (tmp_path / "pipeline.toml").write_text(TOML)

    def call(*arguments: str, changed: Mapping[str, str]) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=tmp_path,
            env={**os.environ, **stack.variables, **changed},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=90,
        )
        assert "Traceback" not in done.stdout
        for value in changed.values():
            password = value.partition("://")[2].rpartition("@")[0].partition(":")[2]
            assert not password or password not in done.stdout
        return done.returncode, done.stdout

    return call


@pytest.fixture
def source(source_database: Callable[[], SourceDatabase]) -> SourceDatabase:
    made = source_database()
    with psycopg.connect(made.writer_url) as session:
        session.execute("CREATE TABLE steps (id bigint PRIMARY KEY, merchant_id text NOT NULL)")
    return made


@pytest.fixture
def here(source: SourceDatabase, control_url: str) -> dict[str, str]:
    """A source that can be captured and a migrated control database."""
    database = ControlDatabase(control_url)
    migrate(database)
    database.close()
    return {"CONTROL_DATABASE_URL": control_url, "SHARD0_DATABASE_URL": source.url}


def section(output: str, title: str) -> list[str]:
    """What `pipeline check` says about one thing: its mark, then the problems."""
    lines = output.splitlines()
    (start,) = [number for number, line in enumerate(lines) if line[2:].startswith(title)]
    found = [lines[start][0]]
    for line in lines[start + 1 :]:
        if not line.startswith("    "):
            break
        found.append(line.strip())
    return found


def test_everything_wrong_with_the_file_and_the_environment_is_told_at_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(
        TOML.replace('name = "checked"', 'name = "Not A Name"') + 'group = 0\ntypo = 1\nlease = "5 parsecs"\n'
    )
    changed = {"SHARD0_DATABASE_URL": "", "REDIS_URL": f"http://:{SECRET}@h", "S3_BUCKET": "No Bucket"}
    for arguments in (("check",), ("capture", "install", "shard0"), ("migrate",)):
        code, output = run(*arguments, changed=changed)
        assert code == 1
        lines = output.splitlines()
        assert len(lines) == 7, output
        assert all(line.startswith("error: ") for line in lines)
        for number, what in ((2, "deployment.name"), (11, "group"), (12, "typo"), (13, "lease")):
            assert any(f"pipeline.toml:{number}: " in line and what in line for line in lines), output
        for variable in changed:
            assert any(line.startswith(f"error: environment: {variable} ") for line in lines), output


@pytest.mark.parametrize(
    "text", ["[deployment\n", "name = 1\nname = 2\n", '[sources]\nshard0 = "no table"\n']
)
def test_a_file_that_is_no_toml_or_has_another_shape(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "pipeline.toml").write_text(text)
    code, output = run("check", changed={})
    assert code == 1
    assert "pipeline.toml" in output


# Mutant: the tables of all sources are read for each sink; then a source that is away hides the sinks' own answers.
def test_services_that_are_away_are_each_told_in_one_line(run: Run) -> None:
    code, output = run("check", changed=AWAY)
    assert code == 1
    for title, hint in (
        ("control database", "CONTROL_DATABASE_URL"),
        ("source shard0", "SHARD0_DATABASE_URL"),
        ("Kafka", "KAFKA_BOOTSTRAP_SERVERS"),
        ("Redis", "REDIS_URL"),
        ("Elasticsearch", "ELASTICSEARCH_URL"),
        ("Redshift", "REDSHIFT_URL"),
    ):
        mark, problem = section(output, title)
        assert mark == "✗"
        assert hint in problem, problem
    assert section(output, "consumer search") == ["✓"]


def test_migrate_names_the_service_that_is_away(
    run: Run,
    here: dict[str, str],
    tmp_path: Path,
    index_prefix: str,
    kafka_topic: Callable[..., str],
    kafka_admin: KafkaAdminClient,
) -> None:
    topic = kafka_topic(partitions=4)
    text = TOML.replace('"checked"', f'"{index_prefix}"').replace("checked_by_a_test", topic)
    copies = f'eventstream.topic = "{topic}.events"\nreplication_factor = 1\nmin_insync_replicas = 1\n'
    text = text.replace("[deployment]\n", f"[deployment]\n{copies}")
    (tmp_path / "pipeline.toml").write_text(text + "\n[search]\nreplicas = 0\n")
    for variable in sorted(AWAY.keys() - {"REDIS_URL"}):
        code, output = run("migrate", changed={**here, variable: AWAY[variable]})
        assert code == 1
        problem = output.splitlines()[-1]
        assert problem.startswith("error: ")
        assert problem.endswith(f"(see {variable})"), output
    kafka_admin.delete_topics([f"{topic}.{suffix}" for suffix in ("events", "snapshot", "progress")])


@pytest.mark.parametrize(
    "arguments", [("status",), ("verify",), ("rejected", "list", "search")], ids="-".join
)
def test_commands_that_read_say_what_is_away(run: Run, arguments: tuple[str, ...], control_url: str) -> None:
    code, output = run(*arguments, changed=AWAY)
    assert code == 1
    assert "CONTROL_DATABASE_URL" in output
    code, output = run(*arguments, changed={**AWAY, "CONTROL_DATABASE_URL": control_url})
    assert code == 1
    assert "pipeline migrate" in output


def test_tables_that_cannot_be_captured_are_refused_by_check_and_install(
    run: Run, source: SourceDatabase, here: dict[str, str], tmp_path: Path
) -> None:
    with psycopg.connect(source.writer_url) as session:
        session.execute("ALTER TABLE steps DROP CONSTRAINT steps_pkey")
        session.execute("CREATE TABLE keyless (merchant_id text, at timestamptz)")
    more = TOML + '\n[sources.shard0.tables."public.keyless"]\nmerchant = { column = "merchant_id" }\n'
    (tmp_path / "pipeline.toml").write_text(more)
    code, output = run("check", changed=here)
    assert code == 1
    mark, *problems = section(output, "source shard0")
    assert mark == "✗"
    assert [problem.split(":")[0] for problem in problems] == [
        "source shard0, table public.keyless",
        "source shard0, table public.steps",
    ]
    assert all("primary key" in problem for problem in problems)
    assert output.count("primary key") == 2
    code, refused = run("capture", "install", "shard0", changed=here)
    assert code == 1
    assert refused.splitlines() == [f"error: {problem}" for problem in problems]
    with psycopg.connect(source.url) as session:
        assert session.execute("SELECT to_regnamespace('cdc')").fetchone() == (None,)


def test_a_source_without_pgq_is_fine_and_gets_it(
    run: Run, source: SourceDatabase, here: dict[str, str]
) -> None:
    with psycopg.connect(source.admin_url) as session:
        session.execute("DROP EXTENSION pgq CASCADE")
    _, output = run("check", changed=here)
    assert section(output, "source shard0") == ["✓"]
    code, output = run("capture", "install", "shard0", changed=here)
    assert (code, output) == (0, "shard0: 1 tables captured, generation 1\n")


def test_the_switch_works_without_the_control_database_and_check_and_status_tell(
    run: Run, source: SourceDatabase, here: dict[str, str]
) -> None:
    # Mutant: `check` that only asks whether the tables could be captured.
    assert run("capture", "install", "shard0", changed=here)[0] == 0
    away = {**here, "CONTROL_DATABASE_URL": AWAY["CONTROL_DATABASE_URL"]}
    code, output = run("capture", "disable", "shard0", "--reason", "a drill", changed=away)
    assert code == 0
    assert "not written to the record of actions" in output
    _, *problems = section(run("check", changed=here)[1], "source shard0")
    assert "a drill" in problems[0] and "pipeline capture enable shard0" in problems[0]
    assert run("capture", "lint", "shard0", changed=here)[0] == 1
    assert "every table: capture is disabled since" in run("status", changed=here)[1]
    assert run("capture", "install", "shard0", changed=here)[0] == 1
    assert run("capture", "enable", "shard0", changed=here)[0] == 0
    assert section(run("check", changed=here)[1], "source shard0") == ["✓"]
    code, output = run("capture", "lint", "shard0", "--json", changed=here)
    assert (code, [finding["level"] for finding in json.loads(output)]) == (0, ["note"])


def test_a_source_that_refuses_the_password(run: Run, here: dict[str, str]) -> None:
    """The server's refusal names the user; what was tried is not shown."""
    parts = urlsplit(here["SHARD0_DATABASE_URL"])
    wrong = urlunsplit(
        parts._replace(netloc=f"pipeline:{SECRET}@{parts.hostname}:{parts.port}", path="/none_such")
    )
    code, output = run("check", changed={**here, "SHARD0_DATABASE_URL": wrong})
    assert code == 1
    _, problem = section(output, "source shard0")
    assert "see SHARD0_DATABASE_URL" in problem


# Mutant: URLs are only looked at for how they begin; then a client shows the part of the password it took for a port.
@pytest.mark.parametrize("password", ["plan/ted", "plan@ted", "plan%zzted", "plan ted", "plan#ted", "1/plan"])
def test_a_password_that_breaks_its_url_is_not_shown(run: Run, password: str) -> None:
    urls = {name: value.replace(SECRET, password) for name, value in AWAY.items() if SECRET in value}
    code, output = run("check", changed=urls)
    assert code == 1
    assert "plan" not in output
    assert sorted(output.splitlines()) == sorted(
        f"error: environment: {name} is no URL; percent-encode special characters in user and password"
        for name in urls
    )
