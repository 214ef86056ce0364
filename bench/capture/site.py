"""The deployment ``bench_capture``: a source that the relay reads, a source that only writers use, and no consumer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, LiteralString

from bench import load
from bench.capture import tables
from bench.site import Site, pids
from devstack.supervisor import Supervisor

Client = Literal["none", "kafka-python", "confluent-kafka"]
"""What the relay hands its records to: nothing, or a Kafka client."""

SHOP, WRITERS = "shop", "writers"
PAYMENTS, IMPORTS = "payments", "imports"
RELAYING = '"relaying"'
_NAME = "bench_capture"
_CONFLUENT = "confluent.toml"
_TOML = f"""
[deployment]
name = "{_NAME}"
datastream = {{ topic = "{_NAME}", partitions = 12 }}
eventstream = {{ topic = "{_NAME}.events", partitions = 12 }}
replication_factor = 1
min_insync_replicas = 1
producer = "kafka-python"

[sources.{SHOP}.tables."public.{PAYMENTS}"]
merchant = {{ column = "merchant_id" }}

[sources.{SHOP}.tables."public.{IMPORTS}"]
merchant = {{ column = "merchant_id" }}
capture = "statement"

[sources.{WRITERS}.tables."public.{tables.BY_ROW}"]
merchant = {{ column = "merchant_id" }}

[sources.{WRITERS}.tables."public.{tables.BY_STATEMENT}"]
merchant = {{ column = "merchant_id" }}
capture = "statement"
"""


@dataclass
class CaptureSite(Site):
    """One relay runs at a time, or none."""

    NAME: ClassVar[str] = _NAME
    TOML: ClassVar[str] = _TOML
    SOURCES: ClassVar[Mapping[str, LiteralString]] = {
        SHOP: load.SCHEMA + ";" + load.SCHEMA.replace(PAYMENTS, IMPORTS),
        WRITERS: tables.CREATE,
    }
    _relay: Supervisor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        confluent = self.TOML.replace('"kafka-python"', '"confluent-kafka"')
        (self.directory / _CONFLUENT).write_text(confluent)

    @property
    def topic(self) -> str:
        """Where changes go."""
        return self.settings.datastream.topic

    def start_relay(self, client: Client = "kafka-python") -> int:
        """Start a relay of SHOP and wait until it relays; its pid."""
        name = f"relay_{client}"
        module = "bench.capture.discarding" if client == "none" else "pipeline capture run"
        self._relay = self.supervisor({name: f"{module} {SHOP}"})
        if client == "confluent-kafka":
            self._relay.set_env(name, {"PIPELINE_CONFIG": _CONFLUENT})
        begins = self.logged(name)
        pid = self._relay.start(name)
        self.awaited(name, begins, RELAYING)
        return pid

    def stop_relay(self) -> None:
        """SIGTERM; RuntimeError when it had died before."""
        try:
            pids(self._relay)
        finally:
            self.stop()

    def stop(self) -> None:
        """SIGTERM for what runs."""
        if self._relay is not None:
            self._relay.stop()
            self._relay = None
