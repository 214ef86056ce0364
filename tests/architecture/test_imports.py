"""The import contracts in pyproject.toml hold, and each of them notices what it is for."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[2]

# A line planted into a module, and the contract that must break.
PLANTED = (
    ("pipeline/search/writer.py", "import pipeline.warehouse.rows", "Imports go one way"),
    ("pipeline/lanes/held.py", "import tasks.app", "no Celery app"),
    ("pipeline/verify/run.py", "import example.rows", "without its development stack"),
    ("pipeline/domain/event.py", "import time", "The domain reads no clock"),
    ("pipeline/lanes/claim.py", "import pipeline.telemetry", "What only computes"),
    ("pipeline/capture/relay.py", "import kafka", "Loops speak through ports"),
    ("pipeline/verify/table.py", "import psycopg", "psycopg:"),
    ("pipeline/bridge/start.py", "import kafka", "Kafka:"),
    ("pipeline/storage.py", "import redis", "Redis:"),
    ("pipeline/lanes/store.py", "import celery", "Celery and kombu:"),
    ("pipeline/verify/table.py", "import elasticsearch", "Elasticsearch:"),
    ("pipeline/warehouse/stager.py", "import boto3", "Redshift and S3:"),
    ("pipeline/control/parts.py", "import click", "Words for people:"),
    ("pipeline/search/client.py", "import os", "Settings and the environment"),
)
CLOCKS = {"now", "today", "utcnow", "time", "monotonic", "uuid4", "random"}


def lint(directory: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    done = subprocess.run(
        command, check=False, cwd=directory, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def copy(directory: Path) -> Path:
    for folder in ("pipeline", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / folder, directory / folder, ignore=ignored)
    shutil.copy(REPO / "pyproject.toml", directory)
    return directory


def test_the_contracts_hold(tmp_path: Path) -> None:
    status, said = lint(copy(tmp_path))
    assert status == 0, said


def test_each_contract_notices_what_it_is_for(tmp_path: Path) -> None:
    place = copy(tmp_path)
    for module, line, _ in PLANTED:
        with (place / module).open("a") as file:
            file.write(f"\n{line}\n")
    status, said = lint(place)
    assert status != 0
    broken = re.findall(r"^(.*) BROKEN", said, re.MULTILINE)
    assert [name for _, _, name in PLANTED if not any(name in one for one in broken)] == [], said
    kept = re.findall(r"^(.*) KEPT", said, re.MULTILINE)
    assert kept == []


def test_the_domain_asks_no_clock_and_no_chance() -> None:
    """What an import cannot show: ``datetime`` is a value, ``datetime.now`` a clock."""
    asked = [
        f"{path.name}: {ast.unparse(node)}"
        for path in (REPO / "pipeline" / "domain").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]
    assert asked == []


def test_strategies_draw_only_what_hypothesis_gives_them() -> None:
    # Mutant: `import random` in tests/properties/test_bridge_offsets.py.
    modules = {path: ast.parse(path.read_text()) for path in (REPO / "tests").rglob("*.py")}
    with_random = {
        str(path.relative_to(REPO))
        for path, module in modules.items()
        if {"hypothesis", "random"} <= _imported(module)
    }
    assert with_random == set()


def _imported(module: ast.Module) -> set[str]:
    """Top-level names of the modules that are imported whole, and of hypothesis in any way."""
    nodes = list(ast.walk(module))
    whole = {
        name.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for name in node.names
    }
    parts = {(node.module or "").partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    return whole | parts & {"hypothesis"}
