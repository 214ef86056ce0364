"""A snapshot of a source's tables, from its request to its end, and how well its progress foretold that end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.capture.site import SHOP, CaptureSite
from devstack.process import wait_until
from pipeline.control import snapshots
from pipeline.control.database import ControlDatabase

_PATIENCE = 600.0
_GLANCE = 0.1
_RECENT = 30.0  # seconds, as on the command line
_ASKED_AT = (0.25, 0.5, 0.75)  # of the way


@dataclass(frozen=True, slots=True)
class Look:
    """Seconds since the request, rows published by then, and rows expected in all."""

    seconds: float
    published: int
    expected: int


@dataclass(frozen=True, slots=True)
class Copied:
    """One snapshot: its rows, its seconds, and by how much of these the time left was misjudged on the way."""

    rows: int
    seconds: float
    eta_error: float

    @property
    def rows_per_s(self) -> float:
        """From the request to the end."""
        return self.rows / self.seconds


def measure(site: CaptureSite, rounds: int, say: Callable[[str, int, int], None]) -> list[Copied]:
    """So many snapshots by one relay."""
    url = site.settings.environment.control_database_url.get_secret_value()
    database = ControlDatabase(url)
    site.start_relay()
    try:
        return [_copy(site, database, say) for _ in range(rounds)]
    finally:
        site.stop_relay()
        database.close()


def _copy(site: CaptureSite, database: ControlDatabase, say: Callable[[str, int, int], None]) -> Copied:
    before = snapshots.newest(database, SHOP)
    began = time.monotonic()
    site.pipeline("capture", "snapshot", SHOP, "--no-wait")
    asked = time.monotonic() - began
    looks: list[Look] = []

    def over() -> bool:
        state = snapshots.newest(database, SHOP)
        if state is None or (before is not None and state.id == before.id):
            return False
        looks.append(Look(time.monotonic() - began - asked, state.rows_published, state.rows_estimated))
        say("snapshot", state.rows_published, state.rows_estimated)
        if state.status == "failed":
            raise RuntimeError(f"the snapshot failed: {state.detail}")
        return state.finished

    if not wait_until(over, _PATIENCE, _GLANCE):
        raise TimeoutError(f"the snapshot is not done after {_PATIENCE:.0f} s")
    return Copied(looks[-1].published, looks[-1].seconds, eta_error(looks))


def eta_error(looks: Sequence[Look]) -> float:
    """At a quarter, half and three quarters of the way: the worst error of the time left, as a share of the whole time.

    The time left is what the command line shows: rows to come at the pace of those of the last half minute.
    """
    last, errors = looks[-1], [0.0]
    for share in _ASKED_AT:
        look = next(one for one in looks if one.published >= share * last.published)
        since = next(one for one in looks if one.published and one.seconds >= look.seconds - _RECENT)
        if since.published < look.published < last.published:
            pace = (look.published - since.published) / (look.seconds - since.seconds)
            left = max(0, look.expected - look.published) / pace
            errors.append(abs(left - (last.seconds - look.seconds)) / last.seconds)
    return max(errors)
