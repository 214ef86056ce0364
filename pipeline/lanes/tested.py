"""The Celery and kombu that lanes are tested with: ``transport`` and ``request`` stand on their internals."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping

from pipeline.errors import ConfigurationError

TESTED: Mapping[str, str] = {"celery": "5.7", "kombu": "5.7"}


def require_tested(version_of: Callable[[str], str] = importlib.metadata.version) -> None:
    """ConfigurationError when another minor version of either is installed: order might be lost silently."""
    found = {name: version_of(name) for name in TESTED}
    problems = tuple(
        f"{name} {found[name]} is installed, and lanes are tested with {name} {minor} only, on whose internals they"
        " stand: install what requirements.txt pins"
        for name, minor in TESTED.items()
        if ".".join(found[name].split(".")[:2]) != minor
    )
    if problems:
        raise ConfigurationError(problems)
