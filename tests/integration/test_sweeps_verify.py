"""Verify compares nothing while a sweep is due: what it is about to remove would be named as phantoms."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch
from kafka.admin import KafkaAdminClient

from pipeline import settings as configuration
from pipeline.capture.topics import ensure_topics, topics_of
from pipeline.control import sweeps, tables
from pipeline.control.database import ControlDatabase, migrate
from pipeline.settings import Settings
from pipeline.verify.run import NotSettledError, Verification
from tests.conftest import unique
from tests.fakes.search import TABLES
from tests.fakes.sweeps import pass_everywhere, passages, sweep_of

pytestmark = pytest.mark.integration

TOML = """
[deployment]
name = "{name}"
datastream = {{ topic = "{name}", partitions = 2 }}
eventstream = {{ topic = "{name}.events", partitions = 1 }}
replication_factor = 1
min_insync_replicas = 1
[sources.gateway0.tables."public.payments"]
merchant = {{ column = "merchant_id" }}
type = "payment"
[consumers.search]
handler = "tasks.search:index"
"""


@pytest.fixture
def settings(
    control_url: str, kafka_bootstrap: str, kafka_admin: KafkaAdminClient, tmp_path: Path
) -> Iterator[Settings]:
    """A deployment whose topics are empty, so that its consumers have accepted everything."""
    (tmp_path / "pipeline.toml").write_text(TOML.format(name=unique()))
    environ = {
        "CONTROL_DATABASE_URL": control_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "GATEWAY0_DATABASE_URL": "postgresql://127.0.0.1:1/none",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "ELASTICSEARCH_URL": "http://127.0.0.1:1",
        "REDSHIFT_URL": "redshift://127.0.0.1:1/none",
        "S3_BUCKET": "none",
    }
    made = configuration.load(environ, tmp_path)
    ensure_topics(kafka_bootstrap, made.configuration.deployment)
    yield made
    kafka_admin.delete_topics([topic.topic for topic in topics_of(made.configuration.deployment)])


@pytest.fixture
def database(control_url: str) -> Iterator[ControlDatabase]:
    made = ControlDatabase(control_url)
    migrate(made)
    tables.store(made, "gateway0", list(TABLES))
    yield made
    made.close()


def settle(settings: Settings, database: ControlDatabase, timeout: float) -> None:
    with Elasticsearch("http://127.0.0.1:1") as nowhere:
        Verification(settings, database, nowhere, timeout, lambda _: None)._settle([], None)


def test_a_sweep_that_is_due_is_waited_for_and_one_that_is_not_is_not(
    settings: Settings, database: ControlDatabase
) -> None:
    # Mutant: nobody waits for sweeps.
    partly = sweep_of(70, name="younger")
    sweeps.passed(database, "search", passages(settings, "search", partly)[1:])
    settle(settings, database, 0)
    order = pass_everywhere(database, settings, "search", sweep_of(80))
    with pytest.raises(NotSettledError, match="search has not carried out 1 sweeps"):
        settle(settings, database, 0)
    sweeps.finished(database, order, 1)
    settle(settings, database, 0)
