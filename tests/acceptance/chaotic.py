"""A chaos run on servers of its own, as ``pipeline chaos --own-servers``, with the processes' code of one's choice."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from devstack.private import own_servers
from pipeline.chaos import stores
from pipeline.chaos.faults import PROCESSES, Fault
from pipeline.chaos.operators import PEOPLE
from pipeline.chaos.run import Plan, Run
from pipeline.chaos.site import OWN, Site
from pipeline.chaos.stores import Servers
from pipeline.chaos.verdict import Verdict
from pipeline.cli.chaos import show
from tests.acceptance.deployment import REPO
from tests.conftest import unique


@contextmanager
def chaotic(
    directory: Path, variables: Mapping[str, str], control_url: str, code: Path = REPO
) -> Iterator[tuple[Site, Mapping[str, Fault]]]:
    """A site that is not made yet, and every fault that can strike it."""
    with own_servers(directory / "servers") as own:
        known = {**variables, **own.variables, "CONTROL_DATABASE_URL": control_url}
        site = Site(OWN, unique("r")[-8:], directory / "site", code, known)
        servers = Servers(own_redis=True, restart_redis=own.restart_redis, restart_kafka=own.restart_kafka)
        try:
            yield site, {**PROCESSES, **PEOPLE, **stores.of(servers)}
        finally:
            site.close()


def judged(
    site: Site, faults: Mapping[str, Fault], seed: int, minutes: float, only: Sequence[str] = ()
) -> Verdict:
    """Make the site, play 2,000 merchants' traffic and these faults (all by default), and print what came of it."""
    names = [f"m{number}" for number in range(2000)]
    site.create(names)
    chosen = {name: fault for name, fault in faults.items() if not only or name in only}
    verdict = Run(site, Plan(seed, minutes * 60, names, 300, chosen), lambda *_: None).judge()
    console = Console(width=150)
    for struck in verdict.struck:
        console.print(*struck)
    show(verdict, console)
    return verdict
