"""A broker that speaks TLS only and asks for a password: every client of the pipeline gets through, and none without."""

from __future__ import annotations

import base64
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

import pytest

from devstack import java
from devstack.home import here
from devstack.kafka.broker import FLAGS, JAVA, MAIN, SOURCE
from devstack.process import wait_until
from devstack.redshift.tls import server_context
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.topics import Topics
from pipeline.capture.confluent import ConfluentProducer
from pipeline.capture.kafka_python import KafkaPythonProducer
from pipeline.capture.progress import last_progress
from pipeline.capture.topics import check_topics, ensure_topics
from pipeline.errors import TransientError
from pipeline.kafka_security import PLAINTEXT, KafkaSecurity
from pipeline.settings import Deployment

pytestmark = pytest.mark.integration

DEPLOYMENT = Deployment.model_validate({"name": "secured", "replication_factor": 1, "min_insync_replicas": 1})
PASSWORD = "correct horse"
LISTENER = f"""
listener.security.protocol.map=PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT
listener.name.plaintext.sasl.enabled.mechanisms=PLAIN
listener.name.plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  username="pipeline" password="{PASSWORD}" user_pipeline="{PASSWORD}";
sasl.mechanism.inter.broker.protocol=PLAIN
ssl.keystore.type=PEM
ssl.keystore.location=$keystore
ssl.truststore.type=PEM
ssl.truststore.location=$ca
"""


@dataclass(frozen=True, slots=True)
class Broker:
    servers: str
    security: KafkaSecurity


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def broker(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    assert kafka_bootstrap  # where that one runs, its jars and its Java are at hand
    directory = tmp_path_factory.mktemp("secured")
    server_context(directory)
    keystore = directory / "keystore.pem"
    keystore.write_text((directory / "server.key").read_text() + (directory / "server.pem").read_text())
    port = _free_port()
    properties = directory / "server.properties"
    template = (SOURCE / "server.properties").read_text().replace("listener.security.protocol.map", "#")
    properties.write_text(
        Template(template + LISTENER).substitute(
            port=port,
            controller=_free_port(),
            data=directory / "data",
            keystore=keystore,
            ca=directory / "ca.pem",
        )
    )
    state = here().state
    command = [str(java.find(JAVA, state, print)), *FLAGS, "-cp", f"{state / 'java' / 'kafka'}/*"]
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    tool = ["kafka.tools.StorageTool", "format", "--standalone", f"-t={cluster}", "-c", str(properties)]
    subprocess.run([*command, *tool], check=True, capture_output=True)
    security = KafkaSecurity(
        "SASL_SSL", "PLAIN", "pipeline", PASSWORD, ca=(directory / "ca.pem").read_text().replace("\n", "\\n")
    )
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen([*command, MAIN, str(properties)], stdout=log, stderr=log) as process,
    ):
        try:
            yield Broker(f"127.0.0.1:{port}", security)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def topics(broker: Broker) -> Broker:
    """The broker, with a deployment's topics."""

    def made() -> bool:
        try:
            ensure_topics(broker.servers, DEPLOYMENT, broker.security)
        except TransientError:
            return False
        return True

    assert wait_until(made, 60, 0.2), "the broker does not come up"
    return broker


# Mutant: a client that is made without `**security.kafka_python()`; each of them is used here.
def test_every_client_gets_through(topics: Broker) -> None:
    servers, security, topic = topics.servers, topics.security, DEPLOYMENT.datastream.topic
    assert check_topics(servers, DEPLOYMENT, security) == []
    assert last_progress(servers, DEPLOYMENT.progress.topic, "shop", security) is None
    read = Topics((topic,), 12)
    view = GroupView(servers, read, "g", security)
    view.commit(dict.fromkeys(range(12), 0))
    view.close()
    member = GroupMember(servers, read, "g", security=security)
    producers = (KafkaPythonProducer, ConfluentProducer)
    try:
        for kind in producers:
            producer = kind(servers, client_id="test", security=security)
            producer.send(topic, 3, b"6", b"event")
            assert wait_until(lambda producer=producer: producer.wait(0.5) or not producer.records, 20)  # type: ignore[misc]
            producer.close()
        got: list[bytes | None] = []

        def arrived() -> bool:
            for records in member.poll(0.2).records.values():
                got.extend(record.value for record in records)
            return len(got) == len(producers)

        assert wait_until(arrived, 30, pause=0)
    finally:
        member.close()


@pytest.mark.parametrize("wrong", ["password", "authority", "clear"])
def test_who_is_not_what_it_says_gets_nothing(topics: Broker, wrong: str, tmp_path: Path) -> None:
    # Mutant: a context with check_hostname and verify_mode off (authority).
    server_context(tmp_path)
    security = {
        "password": replace(topics.security, password="wrong"),
        "authority": replace(topics.security, ca=str(tmp_path / "ca.pem")),
        "clear": PLAINTEXT,
    }[wrong]
    with pytest.raises(TransientError):
        check_topics(topics.servers, DEPLOYMENT, security)


def test_nothing_secret_is_shown() -> None:
    assert PASSWORD not in repr(KafkaSecurity("SASL_SSL", "PLAIN", "pipeline", PASSWORD))
