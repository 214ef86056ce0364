"""Bridges, workers and their surroundings in memory, every one of which can fail between any two steps.

The dispatcher and the turn are the product's own; around them stand the fakes. There are two topics of two partitions,
numbered through: 0 and 1 hold changes, 2 and 3 rows that snapshots read. Lanes go by their names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.offsets import SweepRecord
from pipeline.consumer import Outcome, Rejection, SinkUnavailableError, Turn
from pipeline.domain.event import Op
from pipeline.domain.routing import is_snapshot_lane, lane_of, merchant_of_lane, partition_of
from pipeline.domain.sweep import Sweep, encode_sweep
from pipeline.errors import PipelineError, TransientError
from pipeline.lanes.claim import Claim, Finished, TurnLimits
from pipeline.lanes.turn import Backoff, Consumption, run_turn
from tests.fakes.kafka import MemoryKafka, MemoryMember, MemoryRecord
from tests.fakes.lane_store import MemoryLane, MemoryLaneStore
from tests.fakes.promises import Broken, Sink
from tests.fakes.turns import event
from tests.fakes.wires import Died, Trouble, Wire, WiredOffsets, WiredStore

PARTITIONS = 2
NUMBERS = range(2 * PARTITIONS)
MERCHANTS = ("6", "7", "12", "acme")
LANES = tuple(lane_of(merchant, snapshot=snapshot) for snapshot in (False, True) for merchant in MERCHANTS)
WORKERS = 3

Kind = Literal["event", "malformed", "no value", "no key"]
Conduct = Literal["accepts", "stops early", "raises", "unavailable", "dies"]
Damage = Literal["lane", "list", "tail", "enqueued", "acknowledged", "due", "dirty", "claim", "leases"]


@dataclass(slots=True)
class Bridge:
    """One bridge process."""

    wire: Wire
    member: MemoryMember
    dispatcher: Dispatcher


@dataclass(slots=True)
class Worker:
    """One worker: the turn in its hands, and its outcomes once the handler returned."""

    claim: Claim | None = None
    outcomes: tuple[Outcome, ...] | None = None


class World:
    """Everything together. `store` and `dispatcher` may be classes that lack a mechanism."""

    def __init__(
        self, store: type[MemoryLaneStore] = MemoryLaneStore, dispatcher: type[Dispatcher] = Dispatcher
    ) -> None:
        self.kafka = MemoryKafka(len(NUMBERS))
        self.kafka.positions = dict.fromkeys(NUMBERS, 0)
        self.store = store(TurnLimits(group=2, events=3, lease=10_000))
        self.sink = Sink({lane: [] for lane in LANES})
        self.bad: set[tuple[int, int]] = set()
        self.rejected: set[tuple[int, int]] = set()
        self.sweeps: set[tuple[int, int]] = set()
        self.passed: set[tuple[int, int]] = set()
        self.late: list[Callable[[], object]] = []
        self.workers = [Worker() for _ in range(WORKERS)]
        self._dispatcher = dispatcher
        self._fences: dict[int, int] = {}
        self._saved: dict[str, Any] | None = None
        self._busy: set[int] = set()
        self._holder: dict[str, int] = {}
        self.bridges = [self._started(0), self._started(1)]
        for number in NUMBERS:
            self.kafka.give(number, self.bridges[number % 2].member)

    # Bridges

    def _started(self, slot: int) -> Bridge:
        wire = Wire(self.late, lambda: self.overtake(slot))
        member = MemoryMember(self.kafka, most=3)
        dispatcher = self._dispatcher(
            member,
            WiredOffsets(wire, member),
            WiredStore(wire, self.store, lambda lane: self._holder.pop(lane, None)),
            partitions=PARTITIONS,
            draw_fences=lambda numbers: wire(self._draw, numbers),
            set_aside=lambda rejections: wire(self.set_aside, rejections),
            pass_sweeps=lambda records: wire(self.pass_sweeps, records),
            flow=Flow(lane_bytes=1500, pending_bytes=6000, snapshot_bytes=3000, pressure=lambda: 0.0),
            clock=self.clock,
        )
        return Bridge(wire, member, dispatcher)

    def clock(self) -> float:
        """Seconds."""
        return self.store.now / 1000

    def _draw(self, numbers: Iterable[int]) -> dict[int, int]:
        drawn = {number: self._fences.get(number, 0) + 1 for number in numbers}
        self._fences |= drawn
        return drawn

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        """The control database stores rejections."""
        self.rejected |= {
            (one.partition + (PARTITIONS if one.snapshot else 0), one.offset) for one in rejections
        }

    def pass_sweeps(self, records: Sequence[SweepRecord]) -> None:
        """The control database notes that sweeps are passed, which must be true."""
        for number, offset, _ in records:
            for record in self.kafka.logs[number][:offset]:
                if (number, record.offset) not in self.sweeps and not self._accepted(number, record):
                    raise Broken(f"partition {number}: a sweep at {offset} passes {record.offset}")
            self.passed.add((number, offset))

    def run_bridge(self, slot: int, trouble: Trouble | None = None, at: int = 0) -> None:
        """One round of a bridge, whose call number `at` meets `trouble`."""
        if slot in self._busy:
            return
        bridge = self.bridges[slot]
        bridge.wire.trouble, bridge.wire.at = trouble, at
        self._busy.add(slot)
        try:
            bridge.dispatcher.run_once()
        except Died:
            self.kill_bridge(slot)
        finally:
            self._busy.discard(slot)
            bridge.wire.trouble = None
        self.check_committed()

    def kill_bridge(self, slot: int) -> None:
        """Kill a bridge: the other takes over its partitions, and a new one starts in its place."""
        dead = self.bridges[slot].member
        self.bridges[slot] = self._started(slot)
        for partition in self.kafka.grants_of(dead):
            self.kafka.give(partition, self.bridges[1 - slot].member)

    def rebalance(self, partition: int, slot: int) -> None:
        """Give a partition to a bridge."""
        self.kafka.give(partition, self.bridges[slot].member)

    def overtake(self, slot: int) -> None:
        """While a bridge stands still in the middle of its round, the other gets all and goes on."""
        for number in NUMBERS:
            self.rebalance(number, 1 - slot)
        for _ in range(2):
            self.run_bridge(1 - slot)

    # Workers

    def claim(self, slot: int, *, reply_lost: bool = False) -> None:
        """A worker claims a turn."""
        worker = self.workers[slot]
        if worker.claim is not None:
            return
        claim = self.store.step().claim
        if claim is not None:
            self._note_holders(claim)
            self._require_changes_first(claim)
        if not reply_lost:
            worker.claim = claim

    def _note_holders(self, claim: Claim) -> None:
        for lane in claim.lanes:
            if self._holder.get(lane.name) in self.store.leases:
                raise Broken(f"{lane.name}: claimed twice")
            self._holder[lane.name] = claim.token

    def _require_changes_first(self, claim: Claim) -> None:
        kinds = {lane.snapshot for lane in claim.lanes}
        waiting = [name for name, due in self.store.due.items() if due <= self.store.now]
        if kinds == {True, False}:
            raise Broken("a turn of both kinds")
        if kinds == {True} and not all(map(is_snapshot_lane, waiting)):
            raise Broken("rows of a snapshot before changes that are due")

    def write(self, slot: int, conduct: Conduct = "accepts", available: bool = True) -> None:
        """A worker runs the handler on its turn; `available`: whether the control database answers."""
        worker = self.workers[slot]
        if worker.claim is None or worker.outcomes is not None:
            return

        def set_aside(rejections: Sequence[Rejection]) -> None:
            if rejections and not available:
                raise TransientError("control database: switched off")
            self.set_aside(rejections)

        consumption = Consumption(
            "search",
            lambda turn: self._handle(turn, conduct),
            set_aside,
            Backoff(lambda: 0.5, most=1.0),
            PARTITIONS,
        )
        try:
            worker.outcomes = run_turn(consumption, worker.claim).outcomes
        except Died:
            self.workers[slot] = Worker()

    def _handle(self, turn: Turn, conduct: Conduct) -> None:
        if conduct == "unavailable":
            raise SinkUnavailableError("switched off")
        for position, lane in enumerate(turn):
            for count, offset in enumerate(lane.offsets):
                self.sink.write(lane_of(lane.merchant, snapshot=lane.snapshot), offset)
                if conduct == "stops early":
                    lane.done(count + 1)
                    lane.retry("stopped early", after=0.1)
                    break
                if conduct == "dies":
                    raise Died
            else:
                lane.done()
            if conduct == "raises" and position == 0:
                raise ValueError("a bug")

    def finish(self, slot: int, trouble: Trouble | None = None) -> None:
        """A worker hands in its outcomes."""
        worker = self.workers[slot]
        if worker.claim is None or worker.outcomes is None:
            return
        finished = Finished(worker.claim, worker.outcomes)
        self.workers[slot] = Worker()
        if trouble == "late":
            self.late.append(lambda: self.store.step([finished], claim=False))
        elif trouble != "no answer":
            self.store.step([finished], claim=False)
        if trouble == "reply lost":  # it does not know, and says it again
            self.workers[slot] = worker

    def kill_worker(self, slot: int) -> None:
        """Kill a worker: its lease goes on until it ends."""
        self.workers[slot] = Worker()

    # Surroundings

    def append(self, lane: str, kind: Kind) -> None:
        """One more record of a lane; strange ones belong to nobody's or cannot be read."""
        merchant, number = merchant_of_lane(lane), number_of(lane)
        offset = self.kafka.end(number)
        if kind != "event":
            self.bad.add((number, offset))
        if kind in ("event", "malformed"):
            self.sink.log[lane].append((offset, kind == "event"))
        value = None if kind == "no value" else b"{" if kind == "malformed" else _value(lane, offset)
        self.kafka.append(number, None if kind == "no key" else merchant.encode(), value)

    def append_sweep(self) -> None:
        """One more sweep, in every partition."""
        sweep = Sweep(1, "sweep", f"sweep-{len(self.sweeps)}", "shop", "public.t", "t", None, "1", "truncate")
        for number in NUMBERS:
            self.sweeps.add((number, self.kafka.append(number, None, encode_sweep(sweep))))

    def pass_time(self, milliseconds: int) -> None:
        """Time passes."""
        self.store.now += milliseconds

    def deliver_late(self) -> None:
        """A call whose caller gave up arrives after all."""
        if self.late:
            with suppress(PipelineError):
                self.late.pop(0)()
        self.check_committed()

    def lose_store(self) -> None:
        """Redis comes back empty."""
        self.store.lose()
        self._holder.clear()

    def save_store(self) -> None:
        """Redis writes a snapshot of itself."""
        self._saved = copy.deepcopy(self._contents())

    def restore_store(self) -> None:
        """Redis comes back as it was at its snapshot."""
        if self._saved is not None:
            vars(self.store).update(copy.deepcopy(self._saved))
            self._holder.clear()

    def _contents(self) -> dict[str, Any]:
        kept = {"limits", "now", "full", "_epochs"}
        return {name: value for name, value in vars(self.store).items() if name not in kept}

    def damage(self, kind: Damage, name: str) -> None:
        """Redis forgets something."""
        lane = self.store.lanes.get(name)
        self._holder.pop(name, None)
        if kind == "leases":
            self.store.leases.clear()
        elif kind == "dirty":
            self.store.dirty.clear()
        elif lane is not None:
            self._damage(kind, name, lane)

    def _damage(self, kind: Damage, name: str, lane: MemoryLane) -> None:
        if kind in ("lane", "list", "due"):
            self.store.due.pop(name, None)
        if kind == "lane":
            del self.store.lanes[name]
        elif kind in ("list", "tail"):
            lane.entries = lane.entries[:-1] if kind == "tail" else []
        elif kind == "claim":
            lane.claim = None
        elif kind == "enqueued":
            lane.enqueued = None
        elif kind == "acknowledged":
            lane.acknowledged = None
        if not lane.entries:
            self.store.due.pop(name, None)

    # Promises

    def check_committed(self) -> None:
        """No committed offset is above an event that nobody accepted, or a sweep of which nobody knows."""
        for partition, position in self.kafka.positions.items():
            for record in self.kafka.logs[partition][:position]:
                if not self._accepted(partition, record):
                    raise Broken(f"partition {partition}: committed {position} passes {record.offset}")

    def _accepted(self, partition: int, record: MemoryRecord) -> bool:
        place = partition, record.offset
        if place in self.sweeps:
            return place in self.passed
        if place in self.bad:
            return place in self.rejected
        lane = lane_of((record.key or b"").decode(), snapshot=partition >= PARTITIONS)
        return (lane, record.offset) in self.sink.written

    def settle(self, rounds: int = 60) -> None:
        """No more trouble: everything must come to rest, with nothing lost."""
        self.store.full = False
        before = dict(self.kafka.positions)
        while self.late:
            self.deliver_late()
        # A commit that arrives behind a newer one sets a position back until the partition's next commit.
        for lane in LANES:
            if self.kafka.positions[number_of(lane)] < before[number_of(lane)]:
                self.append(lane, "event")
        for _ in range(rounds):
            if self._at_rest():
                return
            self._calm_round()
        raise Broken(f"not at rest: committed {self.kafka.positions}")

    def _calm_round(self) -> None:
        self.pass_time(1000)
        for slot in range(len(self.bridges)):
            self.run_bridge(slot)
        for slot in range(WORKERS):
            self.claim(slot)
            self.write(slot)
            self.finish(slot)

    def _at_rest(self) -> bool:
        return all(
            self.kafka.positions[partition] == self.kafka.end(partition) for partition in self.kafka.logs
        )


def number_of(lane: str) -> int:
    """The partition of a lane, numbered through."""
    own = partition_of(merchant_of_lane(lane), PARTITIONS)
    return own + PARTITIONS if is_snapshot_lane(lane) else own


@cache
def _value(lane: str, offset: int) -> bytes:
    op: Op = "r" if is_snapshot_lane(lane) else "u"
    return msgspec.json.encode(event(offset + 1, {"id": offset}, merchant=merchant_of_lane(lane), op=op))
