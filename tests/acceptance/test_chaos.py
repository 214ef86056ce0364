"""Chaos with real processes: nothing lost, nothing out of order; and a verdict that can fail."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.chaos import stores
from pipeline.chaos.faults import PROCESSES
from pipeline.chaos.operators import PEOPLE
from pipeline.chaos.plan import schedule
from pipeline.chaos.stores import Servers
from tests.acceptance.chaotic import chaotic, judged
from tests.acceptance.deployment import REPO
from tests.acceptance.mutants import ACKNOWLEDGED_BY_ANYBODY, Edit, copy_of

SOAK = bool(os.environ.get("SOAK"))
REQUESTS = {"pause", "resume", "release", "resync"}
LATER = {"rewind", "skip"}  # by which two minutes may end before somebody asks for them


@dataclass(frozen=True, slots=True)
class Missing:
    """What is taken away, and faults that it is for; none: all."""

    name: str
    edits: tuple[Edit, ...]
    faults: tuple[str, ...] = ()


MUTANTS = (
    Missing(
        "commit before sink",
        (
            Edit(
                "pipeline/bridge/dispatcher.py",
                "return self._source.position(partition.number) if smallest is None else smallest",
                "return self._source.position(partition.number)",
            ),
        ),
    ),
    Missing(
        "the list's end is not looked at",
        (
            Edit(
                "pipeline/lanes/lua/lane.lua",
                "return (tail and offset_of(tail) or acknowledged) == enqueued",
                "return true",
            ),
        ),
        ("amnesia", "fail-lanes", "sink-away"),
    ),
    Missing(
        "acknowledged by anybody",
        ACKNOWLEDGED_BY_ANYBODY,
        ("stop-worker", "sink-away", "kill-worker"),
    ),
)
mutants = pytest.mark.parametrize("missing", MUTANTS, ids=lambda missing: missing.name.replace(" ", "_"))


TOML = """
[deployment]
name = "{name}"
datastream = {{ topic = "{name}", partitions = 6 }}
eventstream = {{ topic = "{name}.events", partitions = 1 }}
replication_factor = 1
min_insync_replicas = 1

[sources]
"""


def _chaos(
    directory: Path, variables: Mapping[str, str], control_url: str, *options: str, name: str = "shop"
) -> subprocess.CompletedProcess[str]:
    """``pipeline chaos`` to its end, beside the pipeline.toml of a deployment of this name."""
    (directory / "pipeline.toml").write_text(TOML.format(name=name))
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "chaos", *options],
        cwd=directory,
        env={**variables, "CONTROL_DATABASE_URL": control_url, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.acceptance
def test_nothing_is_lost_and_nothing_out_of_order_in_chaos(
    postgres_url: str, control_url: str, variables: Mapping[str, str], tmp_path: Path
) -> None:
    """Two minutes, ten in the soak, of everything that can strike a consumer."""
    # Mutants: MUTANTS.
    seed, minutes = (random.SystemRandom().getrandbits(32), 10) if SOAK else (1, 2)
    told, picture = tmp_path / "verdict.json", tmp_path / "verdict.png"
    options = ("--seed", str(seed), "--minutes", str(minutes), "--json", str(told), "--plot", str(picture))
    done = _chaos(tmp_path, variables, control_url, "--own-servers", *options)
    print(done.stdout, done.stderr)
    verdict = json.loads(told.read_text())
    assert (done.returncode, verdict["findings"]) == (0, [])
    assert (verdict["lost"], verdict["out_of_order"], verdict["at_rest"]) == (0, 0, True)
    possible = {**PROCESSES, **PEOPLE, **stores.of(Servers(True, lambda: None, lambda: None))}
    assert len(verdict["faults"]) >= len(possible) - (0 if SOAK else 3), "faults never struck"
    assert verdict["requests"].keys() >= REQUESTS | (LATER if SOAK else set())
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"seed {seed}" in done.stdout


@pytest.mark.acceptance
def test_chaos_strikes_only_where_it_may_and_what_there_is(
    control_url: str, variables: Mapping[str, str], tmp_path: Path
) -> None:
    done = _chaos(tmp_path, variables, control_url)
    assert (done.returncode, 'deployment "shop" is not marked for chaos' in done.stderr) == (1, True)
    done = _chaos(tmp_path, variables, control_url, "--faults", "kill-worker,rain", name="shop_chaos")
    assert (done.returncode, "rain: there are " in done.stderr) == (2, True)
    # Nobody said that this Redis is nobody else's.
    done = _chaos(tmp_path, variables, control_url, "--faults", "fill-redis", name="shop_chaos")
    assert (done.returncode, "fill-redis: there are " in done.stderr) == (2, True)


@mutants
@pytest.mark.acceptance
@pytest.mark.mutant
@pytest.mark.soak
def test_chaos_finds_what_is_missing_within_its_two_minutes(
    missing: Missing, control_url: str, variables: Mapping[str, str], tmp_path: Path
) -> None:
    code = copy_of(missing.edits, tmp_path / "code")
    with chaotic(tmp_path, variables, control_url, code) as (site, faults):
        verdict = judged(site, faults, 1, 2, missing.faults)
    assert verdict.lost + verdict.out_of_order > 0


@mutants
def test_the_place_of_what_chaos_misses_is_known(missing: Missing, tmp_path: Path) -> None:
    copy_of(missing.edits, tmp_path / "code")


def test_a_seed_draws_one_schedule_and_every_fault_first() -> None:
    weights = {"one": 1.0, "two": 3.0, "three": 0.5}
    strikes = schedule(7, 120, weights)
    assert strikes == schedule(7, 120, dict(reversed(weights.items())))
    assert strikes != schedule(8, 120, weights)
    assert {strike.fault for strike in strikes[:3]} == weights.keys()
    assert max(strike.at for strike in strikes) < 105
