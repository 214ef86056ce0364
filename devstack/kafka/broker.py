"""The broker's process."""

import base64
import logging
import shutil
import socket
import subprocess
import uuid
from pathlib import Path
from string import Template
from typing import ClassVar

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from devstack import java, process
from devstack.service import NotReady, Say, Service, Unavailable

SOURCE = Path(__file__).parent
MAIN = "kafka.Kafka"
JAVA = 17
# Length 10, key 18, version 0, correlation 0, no client id.
API_VERSIONS_REQUEST = bytes.fromhex("0000000a 0012 0000 00000000 ffff")
FLAGS = (
    # As Kafka's own start script has them: the serial collector stopped the broker for a tenth of a second at a time,
    # and with the first of Java's two compilers alone it took twice the CPU.
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExitOnOutOfMemoryError",
    "-Xms512m",
    "-Xmx512m",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)

# The client reports every refused connection at ERROR; while a broker starts that is all it gets.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class Kafka(Service):
    """datastream and eventstream."""

    __slots__ = ()
    name: ClassVar[str] = "kafka"

    @property
    def data(self) -> Path:
        """Configuration and the log."""
        return self.site.home.state / "kafka"

    @property
    def records(self) -> Path:
        """The log's directory."""
        return self.data / "data"

    @property
    def lib(self) -> Path:
        """The jars, kept by `reset`."""
        return self.site.home.state / "java" / "kafka"

    @property
    def properties(self) -> Path:
        """The configuration; its process is recognised by it."""
        return self.data / "server.properties"

    @property
    def identity(self) -> process.Identity:
        """The main class tells the broker from the tools, which take the same file."""
        return process.Identity("java", (MAIN, str(self.properties)))

    def prepare(self, say: Say) -> None:
        """Jars and configuration; the log's directory is formatted once."""
        java.jars(SOURCE / "pom.xml", self.lib, say)
        self.data.mkdir(parents=True, exist_ok=True)
        self._configure(self.properties, self.records)
        if not (self.records / "meta.properties").exists():
            say("formatting the log")
            self._format(say)

    def _configure(self, path: Path, records: Path) -> None:
        template = Template((SOURCE / "server.properties").read_text())
        controller = self.site.ports["kafka_controller"]
        path.write_text(template.substitute(port=self.port, controller=controller, data=records))

    def _format(self, say: Say) -> None:
        """Format beside the place and rename, so that a kill leaves no half-formatted log."""
        fresh, properties = self.data / "data.new", self.data / "format.properties"
        for leftover in (fresh, self.records):
            shutil.rmtree(leftover, ignore_errors=True)
        self._configure(properties, fresh)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = ["kafka.tools.StorageTool", "format", "--standalone", f"-t={cluster}", "-c", str(properties)]
        done = subprocess.run(
            [*self._java(say), *tool], check=False, capture_output=True, text=True, cwd=self.cwd
        )
        if done.returncode:
            raise Unavailable(f"formatting failed:\n{done.stdout}{done.stderr}", f"Look at {self.data}.")
        fresh.rename(self.records)

    def _java(self, say: Say) -> list[str]:
        program = java.find(JAVA, self.site.home.state, say)
        return [str(program), *FLAGS, "-cp", f"{self.lib}/*"]

    def command(self) -> list[str]:
        """The broker and controller."""
        return [*self._java(lambda _: None), MAIN, str(self.properties)]

    def _knock(self) -> None:
        """Ask for the versions it speaks, in bytes: the client leaves sockets open when a broker does not answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(API_VERSIONS_REQUEST)
                if not connection.recv(4):
                    raise NotReady("it hung up")
        except OSError as error:
            raise NotReady(str(error)) from error

    def probe(self) -> str:
        """Metadata that lists a living broker."""
        self._knock()
        try:
            client = KafkaAdminClient(
                bootstrap_servers=f"127.0.0.1:{self.port}", request_timeout_ms=3000, bootstrap_timeout_ms=2000
            )
        except KafkaError as error:
            raise NotReady(str(error)) from error
        try:
            brokers = client.describe_cluster()["brokers"]
        except KafkaError as error:
            raise NotReady(str(error)) from error
        finally:
            client.close()
        if not brokers:
            raise NotReady("no broker has registered")
        return next(self.lib.glob("kafka_2.13-*.jar")).stem.partition("-")[2]
