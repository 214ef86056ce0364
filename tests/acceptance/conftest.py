from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.deployment import REPO, Deployment
from tests.conftest import Stack, unique


@pytest.fixture
def deployment(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Makes deployments; each is created, not yet installed. `deployment(code)` runs the modules found in `code`."""
    made: list[Deployment] = []

    def make(code: Path = REPO) -> Deployment:
        name = unique("acc")
        directory = tmp_path / name
        directory.mkdir()
        one = Deployment(name, directory, stack.variables, code)
        made.append(one)
        one.create()
        return one

    yield make
    for one in made:
        one.destroy()
