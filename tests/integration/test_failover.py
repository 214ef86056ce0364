"""A real primary and its standbys: what a relay does when one is promoted, with all that was published or without."""

from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from devstack.postgres import create_database
from devstack.private import own_site
from devstack.process import wait_until
from pipeline.control import snapshots, sources
from pipeline.control.database import ControlDatabase, migrate
from pipeline.domain.event import Event, decode
from tests.conftest import SourceDatabase, unique
from tests.integration.capture_process import site, topics
from tests.integration.captured import NAME, Captured
from tests.integration.kafka_topic import read_topic
from tests.integration.own_services import Server, primary

pytestmark = pytest.mark.integration
TABLE = "create table t (id bigint primary key, merchant_id integer, v integer)"


def insert(server: Server, database: str, number: int) -> None:
    with psycopg.connect(server.url(database, "app"), autocommit=True) as writer:
        writer.execute("insert into t values (%s, 6, 0)", (number,))


def test_a_promoted_standby_goes_on_and_one_that_lost_a_tail_raises_the_generation(
    tmp_path: Path,
    variables: Mapping[str, str],
    control_url: str,
    kafka_bootstrap: str,
    kafka_admin: KafkaAdminClient,
    redis_url: str,
) -> None:
    # Mutants: without the mark every failover raises, or none does; without the timeline the loser is taken for a copy.
    database = ControlDatabase(control_url)
    migrate(database)
    name = unique("source")
    with (
        own_site(tmp_path / "stack") as place,
        primary(place) as first,
        topics(kafka_bootstrap, kafka_admin, unique("topic")) as topic,
    ):
        create_database(first.url("postgres", "devstack"), name)
        source = SourceDatabase(name, first.url(name), first.url(name, "app"), first.url(name, "devstack"))
        captured = Captured(source, database)
        captured.run(TABLE)
        captured.install(t="merchant_id")
        second = first.standby("second")
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port},127.0.0.1:{second.port + 1}"
        url = first.url(name).replace(f"127.0.0.1:{first.port}", hosts)
        here = site(tmp_path, captured, control_url, topic, {**variables, "SHOP_DATABASE_URL": url})

        def changes() -> list[Event]:
            records = read_topic(kafka_bootstrap, topic)
            return [decode(record.value, "6") for record in records if record.key]  # sweeps have none

        def published(number: int) -> Callable[[], bool]:
            return lambda: number in {event.key["id"] for event in changes()}

        with here.relay(SHOP_DATABASE_URL=url):
            insert(first, name, 1)
            assert wait_until(published(1), 30, pause=0.2)
            assert wait_until(lambda: second.position() >= first.position(), 30)
            first.kill()
            second.promote()
            insert(second, name, 2)
            assert wait_until(published(2), 30, pause=0.2)
            assert {event.gen for event in changes()} == {1}
            assert snapshots.newest(database, NAME) is None

            third = second.standby("third")
            assert third.port == second.port + 1
            assert wait_until(lambda: third.position() >= second.position(), 30)
            third.kill()
            insert(second, name, 3)
            assert wait_until(published(3), 30, pause=0.2)
            second.kill()
            third.start()
            third.promote()
            insert(third, name, 4)
            assert wait_until(published(4), 30, pause=0.2)
            assert {event.key["id"]: event.gen for event in changes()} == {1: 1, 2: 1, 3: 1, 4: 2}
            assert snapshots.newest(database, NAME) is not None
            known = sources.load(database, NAME)
            assert known is not None and (known.generation, known.timeline) == (2, 3)

        first.start()
        refused = here.command("capture", "run", NAME, SHOP_DATABASE_URL=first.url(name))
        said, _ = refused.communicate(timeout=30)
        assert refused.returncode == 1
        assert "moved on to timeline 3" in said or "disagree" in said, said
    database.close()
