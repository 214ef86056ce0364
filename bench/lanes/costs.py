"""CPU per event by the number of merchants, a turn taking up to fifty lanes or one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.lanes import publishing
from bench.lanes.draining import Drained, drain
from bench.lanes.events import Envelopes, names, zipf
from bench.lanes.site import GROUPED, SINGLE, LaneSite

Say = Callable[[str, int, int], None]
_WARM_UP = 20_000


@dataclass(frozen=True, slots=True)
class Cost:
    """Draining events of so many merchants, up to `group` lanes in a turn."""

    merchants: int
    group: int
    drained: Drained


def measure(site: LaneSite, merchants: int, grouped: int, single: int, say: Say) -> list[Cost]:
    """Drain `grouped` events by turns of up to fifty lanes, then `single` others by turns of one.

    Before the first, each merchant has an event of its own, so that all lanes exist as they do in operation.
    """
    known, envelopes = names(merchants), Envelopes("shop")

    def publish(what: str, count: int, seed: int) -> None:
        chosen = known if seed == 0 else zipf(known, count, seed)
        publishing.publish(
            site.bootstrap, site.topic, map(envelopes.of, chosen), lambda done: say(what, done, count)
        )

    title = f"{merchants:,} merchants"
    publish(f"{title}: one event each", merchants, 0)
    publish(f"{title}: warming up", _WARM_UP, 1)
    site.start_worker(GROUPED)
    warm = merchants + _WARM_UP
    drain(site, GROUPED, warm, lambda done: say(f"{title}: warming up", done, warm))
    publish(f"{title}: publishing", grouped, 2)
    first = drain(site, GROUPED, grouped, lambda done: say(f"{title}, in groups", done, grouped))
    site.end("worker")
    site.start_worker(SINGLE)
    site.start_bridge(SINGLE)  # begins at the end of the topic, and that is noted
    site.end("bridge")
    publish(f"{title}: publishing", single, 3)
    second = drain(site, SINGLE, single, lambda done: say(f"{title}, one by one", done, single))
    site.end("worker")
    return [Cost(merchants, 50, first), Cost(merchants, 1, second)]
