"""A hosted database: no superuser, no CREATE EXTENSION, roles that a DBA made before. PgQ comes as PL/pgSQL."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from pipeline.capture import pgq
from pipeline.capture.session import session
from pipeline.control.database import ControlDatabase, migrate
from pipeline.errors import ConfigurationError
from tests.conftest import SourceDatabase, at, unique
from tests.integration.captured import Captured
from tests.integration.dumps import dumped

pytestmark = pytest.mark.integration

DEBIAN = Path("/usr/share/postgresql/15/contrib/pgq_pl_only.sql")


@pytest.fixture
def hosted(postgres_url: str, control_url: str) -> Iterator[Captured]:
    """A database without PgQ whose owner owns the tables too, and may do nothing else but look at sessions."""
    name, role = unique("hosted"), unique("owner")
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("create role {0} login password 'x'; grant pg_monitor to {0}").format(
                sql.Identifier(role)
            )
        )
        admin.execute(
            sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(role))
        )
    url = _as_role(at(postgres_url, name), role)
    database = ControlDatabase(control_url)
    migrate(database)
    yield Captured(SourceDatabase(name, url, url, at(postgres_url, name)), database)
    database.close()
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def _as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:x@{parts.hostname}:{parts.port}"))


def made(captured: Captured) -> str:
    with session(captured.source.admin_url) as connection:
        row = connection.execute("select pgq from cdc.identity").fetchone()
    assert row is not None
    return str(row[0])


def test_an_owner_without_any_other_right_installs_captures_and_uninstalls(hosted: Captured) -> None:
    # Mutant: PgQ is left behind at uninstall, or is only ever an extension.
    hosted.run("create table t (id bigint primary key, merchant_id bigint)")
    before = dumped(hosted)
    printed = hosted.install(True, t="merchant_id")
    assert any("create schema pgq" in statement for statement in printed.statements)
    assert dumped(hosted) == before
    assert hosted.install(t="merchant_id").advice == []
    assert made(hosted) == "sql"
    once = dumped(hosted)
    hosted.run("insert into t values (1, 6)", "update t set merchant_id = 7")
    assert hosted.install(t="merchant_id").advice == []
    assert (made(hosted), dumped(hosted)) == ("sql", once)
    assert [(event.op, event.merchant) for event in hosted.drain()] == [("c", "6"), ("d", "6"), ("u", "7")]
    hosted.uninstall()
    assert dumped(hosted) == before
    hosted.run("insert into t values (2, 6)")


def test_every_function_that_runs_as_its_owner_has_its_own_search_path_and_nothing_is_for_everybody(
    hosted: Captured,
) -> None:
    # Mutant: without `pgq.harden` twenty functions are found, without the REVOKE at the end all of cdc's.
    hosted.run("create table t (id bigint primary key, merchant_id bigint)")
    hosted.install(t="merchant_id")
    with session(hosted.source.url) as connection:
        soft = connection.execute(
            "select proname from pg_proc where pronamespace::regnamespace::text in ('pgq', 'cdc') and prosecdef"
            " and not coalesce(proconfig::text like '%search_path=pg_catalog, pg_temp%', false)"
        )
        assert soft.fetchall() == []
        public = connection.execute(
            "select proname from pg_proc where pronamespace = 'cdc'::regnamespace and"
            " exists (select from aclexplode(coalesce(proacl, acldefault('f', proowner))) where grantee = 0)"
        )
        assert public.fetchall() == []


def test_a_pgq_with_somebody_elses_queue_stays(hosted: Captured) -> None:
    # Mutant: uninstall drops schema pgq whenever an install made it, and with it the other queue.
    hosted.run("create table t (id bigint primary key, merchant_id bigint)")
    hosted.install(t="merchant_id")
    hosted.run("select pgq.create_queue('mail')")
    hosted.uninstall()
    with session(hosted.source.url) as connection:
        assert connection.execute("select queue_name from pgq.queue").fetchall() == [("mail",)]


def test_an_extension_that_an_install_made_goes_with_it(
    captured_by_superuser: Captured,
) -> None:
    captured_by_superuser.run("create table t (id bigint primary key, merchant_id bigint)")
    before = dumped(captured_by_superuser)
    captured_by_superuser.install(t="merchant_id")
    assert made(captured_by_superuser) == "extension"
    captured_by_superuser.uninstall()
    assert dumped(captured_by_superuser) == before


@pytest.fixture
def captured_by_superuser(hosted: Captured) -> Captured:
    """The same database, captured by a role that may create extensions."""
    return replace(hosted, source=replace(hosted.source, url=hosted.source.admin_url))


def test_without_the_roles_and_the_right_to_make_them_it_says_what_to_run(
    hosted: Captured, variables: Mapping[str, str]
) -> None:
    with (
        session(hosted.source.admin_url) as connection,
        pytest.raises(_RollbackError),
        connection.transaction(),
    ):
        owner = urlsplit(hosted.source.url).username or ""
        connection.execute(
            "alter role pgq_reader rename to pgq_reader_hidden"
        )  # seen by this transaction alone
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(owner)))
        (problem,) = pgq.problems(connection, owner)
        assert "CREATE ROLE pgq_admin IN ROLE pgq_reader, pgq_writer" in problem
        connection.execute("reset role")
        assert pgq.problems(connection, "devstack") == []
        raise _RollbackError


class _RollbackError(Exception):
    """Ends a transaction of which nothing may stay."""


def test_a_pgq_of_others_needs_its_admin_role(hosted: Captured) -> None:
    hosted.run("create table t (id bigint primary key, merchant_id bigint)")
    with psycopg.connect(hosted.source.admin_url, autocommit=True) as admin:
        admin.execute("create extension pgq")
    with pytest.raises(ConfigurationError, match="GRANT pgq_admin TO"):
        hosted.install(t="merchant_id")


@pytest.mark.skipif(not DEBIAN.exists(), reason="the Debian package postgresql-15-pgq3 is not installed")
def test_the_sql_we_ship_is_debians() -> None:
    assert (Path(pgq.__file__).parent / DEBIAN.name).read_bytes() == DEBIAN.read_bytes()
