"""The node's process."""

import json
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError
from urllib.request import urlopen

from devstack import java, process
from devstack.service import NotReady, Say, Service

SOURCE = Path(__file__).parent
MAIN = "org.elasticsearch.plugins.DevElasticsearch"
JAVA = 21
FLAGS = (
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:+ExitOnOutOfMemoryError",
    "--enable-native-access=ALL-UNNAMED",
    "-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
    "-Dio.netty.recycler.maxCapacityPerThread=0",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dlog4j2.disable.jmx=true",
)


class Elasticsearch(Service):
    """The search sink."""

    __slots__ = ()
    name: ClassVar[str] = "elasticsearch"
    patience: ClassVar[float] = 120.0

    @property
    def data(self) -> Path:
        """The node's home: indices, temporary files."""
        return self.site.home.state / "elasticsearch"

    @property
    def build(self) -> Path:
        """Jars and the compiled launcher, kept by `reset`."""
        return self.site.home.state / "java" / "elasticsearch"

    @property
    def identity(self) -> process.Identity:
        """The launcher with our home."""
        return process.Identity("java", (MAIN, str(self.data)))

    def prepare(self, say: Say) -> None:
        """Jars, the launcher, and the directories Elasticsearch wants to exist."""
        java.jars(SOURCE / "pom.xml", self.build / "lib", say)
        program = java.find(JAVA, self.site.home.state, say)
        source = SOURCE / "DevElasticsearch.java"
        java.compile_source(program, source, self.build / "lib", self.build / "classes")
        for directory in ("native", "tmp"):
            (self.data / directory).mkdir(parents=True, exist_ok=True)
        self._link_zstd()

    def _link_zstd(self) -> None:
        """The codec best_compression loads the system's libzstd from here."""
        link = self.data / "native" / "libzstd.so"
        for library in sorted(Path("/usr/lib").glob("*-linux-gnu/libzstd.so.1"))[:1]:
            link.unlink(missing_ok=True)
            link.symlink_to(library)

    def command(self) -> list[str]:
        """The launcher, on the first Java that is new enough."""
        program = java.find(JAVA, self.site.home.state, lambda _: None)
        vectors = java.vector_flags(program)
        places = [f"-Des.nativelibs.path={self.data}/native", f"-Djava.io.tmpdir={self.data}/tmp"]
        path = f"{self.build}/classes:{self.build}/lib/*"
        ports = [str(self.port), str(self.site.ports["elasticsearch_transport"])]
        return [str(program), *FLAGS, *vectors, *places, "-cp", path, MAIN, str(self.data), *ports]

    def probe(self) -> str:
        """Health yellow or better, which is all one node can have."""
        try:
            health = self._get("/_cluster/health?wait_for_status=yellow&timeout=1s")
            if health["timed_out"]:
                raise NotReady(f"health is {health['status']}")
            return str(self._get("/")["version"]["number"])
        except (OSError, URLError, ValueError) as error:
            raise NotReady(str(error)) from error

    def _get(self, path: str) -> dict[str, Any]:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
        return answer
