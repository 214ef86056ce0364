"""The capture process as it runs in production, started and killed by tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPO
from tests.integration.captured import NAME, Captured

CONFIGURATION = """
[deployment]
name = "{topic}"
datastream = {{ topic = "{topic}", partitions = 3 }}
replication_factor = 1
min_insync_replicas = 1

[sources.{source}.tables."public.t"]
merchant = {{ column = "merchant_id" }}
"""
TOPIC = {"retention.ms": "604800000", "unclean.leader.election.enable": "false", "min.insync.replicas": "1"}


@dataclass(frozen=True, slots=True)
class Site:
    """Where `pipeline` runs: its directory with pipeline.toml, and its variables."""

    directory: Path
    variables: Mapping[str, str]

    def command(self, *arguments: str, failpoints: str = "") -> "subprocess.Popen[str]":
        """Start `pipeline` with these arguments."""
        environment = {**self.variables, "PIPELINE_FAILPOINTS": failpoints}
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=self.directory,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    @contextmanager
    def relay(self) -> Iterator["subprocess.Popen[str]"]:
        """A relay that ends in time when told to, and well."""
        process = self.command("capture", "run", NAME)
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


def site(
    directory: Path, captured: Captured, control_url: str, topic: str, variables: Mapping[str, str]
) -> Site:
    """A deployment of one source and nothing else."""
    (directory / "pipeline.toml").write_text(CONFIGURATION.format(topic=topic, source=NAME))
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
