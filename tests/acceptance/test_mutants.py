"""Every mechanism earns its keep: with it its scenario ends clean, without it the same scenario ends in findings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance import ledger
from tests.acceptance.deployment import SOURCES, Deployment
from tests.acceptance.mutants import MUTANTS, Mutant, verified

pytestmark = pytest.mark.mutant
mutants = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))


@pytest.mark.acceptance
def test_with_its_mechanisms_every_scenario_ends_clean(deployment: Callable[..., Deployment]) -> None:
    one = deployment()
    one.install(SOURCES[:1])
    assert {mutant.name: mutant.scenario(one) for mutant in MUTANTS} == {
        mutant.name: [] for mutant in MUTANTS
    }
    assert verified(one) == []
    assert ledger.doubled(one) == []


@mutants
@pytest.mark.acceptance
def test_without_its_mechanism_a_scenario_ends_in_findings(
    mutant: Mutant, deployment: Callable[..., Deployment], tmp_path: Path
) -> None:
    one = deployment(mutant.copy(tmp_path / "code"))
    one.install(SOURCES[:1])
    found = mutant.scenario(one)
    print(mutant.name, found)
    assert any(mutant.shows in finding for finding in found), found


@mutants
def test_the_place_of_a_mechanism_is_known(mutant: Mutant, tmp_path: Path) -> None:
    mutant.copy(tmp_path / "code")
