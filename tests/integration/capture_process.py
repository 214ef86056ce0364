"""The capture process as it runs in production, started and killed by tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kafka.admin import KafkaAdminClient

from pipeline.capture.topics import ensure_topics, topics_of
from pipeline.settings import Deployment, Topic
from tests.conftest import REPO
from tests.integration.captured import NAME, Captured

CONFIGURATION = """
[deployment]
name = "{topic}"
datastream = {{ topic = "{topic}", partitions = 3 }}
eventstream = {{ topic = "{topic}.events", partitions = 3 }}
replication_factor = 1
min_insync_replicas = 1

{settings}
[sources.{source}]
alarm_lag = "1s"
[sources.{source}.tables."public.t"]
merchant = {{ column = "merchant_id" }}
"""


def deployment(topic: str) -> Deployment:
    """The deployment of `CONFIGURATION`."""
    return Deployment(
        name=topic,
        datastream=Topic(topic=topic, partitions=3),
        eventstream=Topic(topic=f"{topic}.events", partitions=3),
        replication_factor=1,
        min_insync_replicas=1,
    )


@contextmanager
def topics(bootstrap: str, admin: KafkaAdminClient, topic: str) -> Iterator[str]:
    """The topics of such a deployment, as ``pipeline migrate`` makes them."""
    made = deployment(topic)
    ensure_topics(bootstrap, made)
    yield topic
    admin.delete_topics([each.topic for each in topics_of(made)])


@dataclass(frozen=True, slots=True)
class Site:
    """Where `pipeline` runs: its directory with pipeline.toml, and its variables."""

    directory: Path
    variables: Mapping[str, str]

    def command(self, *arguments: str, failpoints: str = "", **variables: str) -> "subprocess.Popen[str]":
        """Start `pipeline` with these arguments."""
        environment = {**self.variables, "PIPELINE_FAILPOINTS": failpoints, **variables}
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @contextmanager
    def relay(self, **variables: str) -> Iterator["subprocess.Popen[str]"]:
        """A relay that ends in time when told to, and well."""
        process = self.command("capture", "run", NAME, **variables)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=10)
            assert process.returncode == 0, output
        finally:
            process.kill()
            process.communicate()

    def killed(self, failpoint: str) -> None:
        """Run a relay until it dies at a named point."""
        process = self.command("capture", "run", NAME, failpoints=failpoint)
        try:
            output, _ = process.communicate(timeout=30)
            assert process.returncode == -signal.SIGKILL, output
        finally:
            process.kill()
            process.communicate()


def site(
    directory: Path,
    captured: Captured,
    control_url: str,
    topic: str,
    variables: Mapping[str, str],
    settings: str = "",
) -> Site:
    """A deployment of one source and nothing else; `settings` are further lines of [deployment], or sections."""
    text = CONFIGURATION.format(topic=topic, source=NAME, settings=settings)
    (directory / "pipeline.toml").write_text(text)
    return Site(
        directory,
        {
            **variables,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPO),
            "CONTROL_DATABASE_URL": control_url,
            f"{NAME.upper()}_DATABASE_URL": captured.source.url,
        },
    )
