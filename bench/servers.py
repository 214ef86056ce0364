"""The servers of this clone's development stack, as processes."""

from __future__ import annotations

from devstack import stack
from devstack.home import here


def servers() -> dict[str, int]:
    """Each service's main process by name; what it starts lies below it."""
    found = {service.name: service.running() for service in stack.services(here())}
    return {name: pid for name, pid in found.items() if pid is not None}
