"""Bridges, workers and their surroundings in memory, every one of which can fail between any two steps.

The dispatcher and the turn are the product's own; around them stand the fakes. Lanes go by their names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from pipeline.bridge.backpressure import Flow
from pipeline.bridge.copied import CopiedRereader
from pipeline.bridge.copies import Copies, by_lane, covered
from pipeline.bridge.copying import Copier
from pipeline.bridge.dispatcher import Dispatcher
from pipeline.bridge.yielding import Yielding
from pipeline.consumer import Lane, Outcome, Rejection, SinkUnavailableError, Turn
from pipeline.domain.routing import is_snapshot_lane, lane_of
from pipeline.errors import PipelineError, TransientError
from pipeline.lanes.claim import Claim, Finished, TurnLimits
from pipeline.lanes.turn import Backoff, Consumption, run_turn
from pipeline.ports import DetachedRow, Detachment, Request, SweepRecord, Verb
from tests.fakes.books import MemoryBooks
from tests.fakes.copies import AtOnce, MemoryArchive, MemoryTimes
from tests.fakes.kafka import MemoryKafka, MemoryMember, MemoryRereader
from tests.fakes.lane_store import MemoryLane, MemoryLaneStore
from tests.fakes.promises import Blame, Broken
from tests.fakes.stream import LANES, NUMBERS, PARTITIONS, Kind, Stream, number_of
from tests.fakes.wires import (
    Died,
    Service,
    Trouble,
    Wire,
    WiredBooks,
    WiredCopies,
    WiredOffsets,
    WiredRereader,
    WiredStore,
    Witness,
)

WORKERS, CURSORS = 3, 2
RETENTION = 4.0  # seconds: what is half as old is copied
OBJECT_BYTES = 500  # a few records
LANE_BYTES = 1200  # a few records
MOST_FAILURES = 3

Conduct = Literal["accepts", "stops early", "raises", "unavailable", "dies"]
Poison = Literal["refused", "raises", "kills", "parked"]
Damage = Literal[
    "lane",
    "list",
    "tail",
    "partition",
    "enqueued",
    "acknowledged",
    "incarnation",
    "parked",
    "due",
    "news",
    "claim",
    "leases",
]


@dataclass(slots=True)
class Bridge:
    """One bridge process."""

    wire: Wire
    member: MemoryMember
    dispatcher: Dispatcher


@dataclass(slots=True)
class Worker:
    """One worker: the turn in its hands, of which incarnations of its lanes, and its outcomes once the handler returned."""

    claim: Claim | None = None
    incarnations: dict[str, int] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] | None = None


class World:
    """Everything together. A lane holds `lane_bytes` before it is detached."""

    def __init__(self, *, lane_bytes: int = LANE_BYTES) -> None:
        self.kafka = MemoryKafka(len(NUMBERS))
        self.kafka.positions = dict.fromkeys(NUMBERS, 0)
        self.kafka.clock = lambda: self.store.now / 1000
        self.stream = Stream(self.kafka)
        self.store = MemoryLaneStore(TurnLimits(group=2, events=3, lease=10_000, max_failures=MOST_FAILURES))
        self.books = MemoryBooks()
        self.archive = MemoryArchive(self.books, self.kafka.clock)
        self.late: list[Callable[[], object]] = []
        self.down: set[Service] = set()
        self.poison: dict[str, Poison] = {}
        self.workers = [Worker() for _ in range(WORKERS)]
        self._blame = Blame()
        self._lane_bytes = lane_bytes
        self._saved: dict[str, Any] | None = None
        self._busy: set[int] = set()
        self._holder: dict[str, int] = {}
        self._asked = 0
        self._broken: Broken | None = None
        self._set_back: set[int] = set()
        self.bridges = [self._started(0), self._started(1)]
        for number in NUMBERS:
            self.kafka.give(number, self.bridges[number % 2].member)

    # Bridges

    def _started(self, slot: int) -> Bridge:
        wire = Wire(self.late, lambda: self.overtake(slot), self.down)
        member = MemoryMember(self.kafka, most=3)
        copies = WiredCopies(wire, self.archive)
        readers = [
            CopiedRereader(
                WiredRereader(wire, MemoryRereader(self.kafka, most=2)), copies, self.kafka.clock, AtOnce()
            )
            for _ in range(CURSORS)
        ]
        dispatcher = Dispatcher(
            member,
            WiredOffsets(wire, member),
            WiredStore(wire, self.store, lambda lane: self._holder.pop(lane, None)),
            WiredBooks(wire, self.books, Witness(self._detached, self.set_aside, self._passing)),
            readers,
            partitions=PARTITIONS,
            flow=Flow(
                lane_bytes=self._lane_bytes, pending_bytes=6000, snapshot_bytes=3000, pressure=lambda: 0.0
            ),
            yielding=Yielding(behind=1, least=2) if slot else None,  # the second bridge reads in slices
            clock=lambda: self.store.now / 1000,
        )
        return Bridge(wire, member, dispatcher)

    def _detached(self, written: Detachment, incarnation: int, request: Request | None) -> None:
        if request is None:
            return
        story = self.stream.stories[written.lane]
        if request.verb == "skip":
            story.skip(request.expected or 0, written.first)
            self.stream.skip(written.lane, request.expected or 0, written.first)
        if request.verb == "rewind":
            story.rewind(written.first, incarnation)

    def set_aside(self, rejections: Sequence[Rejection]) -> None:
        """The control database stores rejections."""
        for one in rejections:
            self.stream.set_aside(one.partition + (PARTITIONS if one.snapshot else 0), one.offset)

    def _passing(self, records: Sequence[SweepRecord]) -> None:
        for number, offset, _ in records:
            self.stream.pass_sweep(number, offset)

    def run_bridge(self, slot: int) -> None:
        """One round of a bridge."""
        if slot in self._busy:
            return
        bridge = self.bridges[slot]
        bridge.wire.wrote = False
        self._busy.add(slot)
        try:
            bridge.dispatcher.run_once()
        except Died:
            self.kill_bridge(slot)
        finally:
            self._busy.discard(slot)
        if bridge.wire.wrote:
            self.check_committed()

    def copy(self, slot: int) -> None:
        """A bridge copies what of detached lanes has used half of its retention."""
        if slot in self._busy:
            return
        bridge = self.bridges[slot]
        copier = Copier(
            cast(Copies, WiredCopies(bridge.wire, self.archive)),
            WiredRereader(bridge.wire, MemoryRereader(self.kafka, most=2)),
            times=lambda: nullcontext(MemoryTimes(self.kafka)),
            retention=lambda: dict.fromkeys(NUMBERS, RETENTION),
            fences=bridge.dispatcher.fences,
            chunk_bytes=OBJECT_BYTES,
            now=self.kafka.clock,
        )
        self._busy.add(slot)
        try:
            copier.run_once()
        except PipelineError:
            pass
        except Died:
            self.kill_bridge(slot)
        finally:
            self._busy.discard(slot)

    def arm(self, slot: int, trouble: Trouble, call: str, passing: int = 0) -> None:
        """A bridge's next call of that kind, after `passing` others, meets trouble."""
        self.bridges[slot].wire.arm(trouble, call, passing)

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
        for _ in range(3):
            self.run_bridge(1 - slot)
            self.turn(0)
            self.pass_time(600)

    # Operators

    def ask(self, verb: Verb, lane: str, back: int = 0) -> None:
        """A person asks something of a lane: to rewind it by so many of its events, or to skip its next record."""
        if any(one.lane == lane for one in self.books.open.values()):
            return
        number, offset, expected = number_of(lane), None, None
        row = self.row(lane)
        if verb == "skip":
            if row is None or (following := self._following(lane, row.first)) is None:
                return
            offset, expected = following + 1, row.first
        if verb == "rewind":
            events = self.stream.stories[lane].events
            offset = max([*events[-1 - back :][:1], self.kafka.begin[number]])
        self._asked += 1
        self.books.ask(Request(self._asked, number, lane, verb, "a person says so", offset, expected))

    def let_go(self, lane: str) -> None:
        """A person lets a lane go on that is paused or parked."""
        row = self.row(lane)
        if row is not None and row.state != "running":
            self.ask("resume" if row.state == "paused" else "release", lane)

    def row(self, lane: str) -> DetachedRow | None:
        """What is written down about a lane that is detached."""
        return self.books.rows.get(number_of(lane), {}).get(lane)

    def _following(self, lane: str, first: int) -> int | None:
        key = lane.removeprefix("s.").encode()
        log = self.kafka.logs[number_of(lane)]
        return next((record.offset for record in log[first:] if record.key == key), None)

    def pause_consumer(self, paused: bool) -> None:
        """A person holds the whole consumer, or lets it go."""
        self.books.paused = paused

    # Workers

    def work(self, slot: int, conduct: Conduct = "accepts", trouble: Trouble | None = None) -> None:
        """A worker does what comes next."""
        worker = self.workers[slot]
        if worker.claim is None:
            self.claim(slot, reply_lost=trouble == "no answer")
        elif worker.outcomes is None:
            self.write(slot, conduct)
        else:
            self.finish(slot, trouble)

    def turn(self, slot: int) -> None:
        """A whole turn."""
        self.claim(slot)
        self.write(slot)
        self.finish(slot)

    def claim(self, slot: int, *, reply_lost: bool = False) -> None:
        """A worker claims a turn."""
        worker = self.workers[slot]
        if worker.claim is not None or "store" in self.down:
            return
        claim = self.store.step().claim
        self._require_no_blameless_parked()
        if claim is None:
            return
        self._note_claim(claim)
        self._require_changes_first(claim)
        if not reply_lost:
            numbers = {lane.name: self._incarnation(lane.name) for lane in claim.lanes}
            self.workers[slot] = Worker(claim, numbers)

    def _incarnation(self, name: str) -> int:
        incarnation = self.store.lanes[name].incarnation
        return -1 if incarnation is None else incarnation

    def _note_claim(self, claim: Claim) -> None:
        for lane in claim.lanes:
            if self._holder.get(lane.name) in self.store.leases:
                raise Broken(f"{lane.name}: claimed twice")
            self._holder[lane.name] = claim.token
            row = self.row(lane.name)
            if row and row.state != "running" and self._incarnation(lane.name) >= row.incarnation:
                raise Broken(f"{lane.name}: claimed while it is {row.state}")
        if len(claim.lanes) == 1:
            self._blame.add(claim.lanes[0].name)

    def _require_changes_first(self, claim: Claim) -> None:
        kinds = {lane.snapshot for lane in claim.lanes}
        if kinds == {True, False}:
            raise Broken("a turn of both kinds")
        if kinds == {True} and any(
            due <= self.store.now and not is_snapshot_lane(name) for name, due in self.store.due.items()
        ):
            raise Broken("rows of a snapshot before changes that are due")

    def _require_no_blameless_parked(self) -> None:
        for name, lane in self.store.lanes.items():
            if lane.parked is not None:
                self._blame.require(name, lane.parked, MOST_FAILURES)

    def write(self, slot: int, conduct: Conduct = "accepts") -> None:
        """A worker runs the handler on its turn."""
        worker = self.workers[slot]
        if worker.claim is None or worker.outcomes is not None:
            return
        consumption = Consumption(
            "search",
            lambda turn: self._handle_openly(worker, turn, conduct),
            self._set_aside_if_up,
            Backoff(lambda: 0.5, most=1.0),
            PARTITIONS,
        )
        try:
            worker.outcomes = run_turn(consumption, worker.claim).outcomes
        except Died:
            self.workers[slot] = Worker()
        if self._broken is not None:
            raise self._broken

    def _set_aside_if_up(self, rejections: Sequence[Rejection]) -> None:
        if rejections and "books" in self.down:
            raise TransientError("control database: switched off")
        self.set_aside(rejections)

    def _handle_openly(self, worker: Worker, turn: Turn, conduct: Conduct) -> None:
        """A turn takes whatever its handler raises for the handler's failure: a broken promise is kept for later."""
        try:
            self._handle(worker, turn, conduct)
        except Broken as broken:
            self._broken = broken
            raise

    def _handle(self, worker: Worker, turn: Turn, conduct: Conduct) -> None:
        if conduct == "unavailable":
            raise SinkUnavailableError("switched off")
        for position, lane in enumerate(turn):
            name = lane_of(lane.merchant, snapshot=lane.snapshot)
            if name in self.poison:
                self._refuse(self.poison[name], lane)
                continue
            for count, offset in enumerate(lane.offsets):
                self.stream.stories[name].write(offset, worker.incarnations[name])
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

    def _refuse(self, poison: Poison, lane: Lane) -> None:
        if poison == "raises":
            raise ValueError("a poisonous event")
        if poison == "kills":
            raise Died
        if poison == "parked":
            lane.park("the sink refuses it for good")
            self._blame.give_up(lane_of(lane.merchant, snapshot=lane.snapshot))
        else:
            lane.retry("the sink refuses it", after=0.1)

    def finish(self, slot: int, trouble: Trouble | None = None) -> None:
        """A worker hands in its outcomes."""
        worker = self.workers[slot]
        if worker.claim is None or worker.outcomes is None or "store" in self.down:
            return
        finished = Finished(worker.claim, worker.outcomes)
        self.workers[slot] = Worker()
        if trouble == "late":
            self.late.append(lambda: self._hand_in(finished))
        elif trouble != "no answer":
            self._hand_in(finished)
        if trouble == "reply lost":  # it does not know, and says it again
            self.workers[slot] = worker

    def _hand_in(self, finished: Finished) -> None:
        refused = self.store.step([finished], claim=False).refused
        self._require_no_blameless_parked()
        if refused:
            return
        names = {lane.merchant: lane.name for lane in finished.claim.lanes}
        for outcome in finished.outcomes:
            if outcome.entries or outcome.kind == "done":
                self._blame.clear(names[outcome.merchant])
            if outcome.kind == "retry":
                self._blame.add(names[outcome.merchant])
            elif outcome.kind == "unavailable" and len(names) == 1:
                self._blame.take_back(names[outcome.merchant])

    def set_group(self, group: int) -> None:
        """From now on a turn has so many lanes at most."""
        self.store.limits = replace(self.store.limits, group=group, events=max(3, group))

    def kill_worker(self, slot: int) -> None:
        """Kill a worker: its lease goes on until it ends."""
        self.workers[slot] = Worker()

    # Surroundings

    def append(self, lane: str, kind: Kind = "event", count: int = 1) -> None:
        """More records of a lane; strange ones belong to nobody's or cannot be read."""
        for _ in range(count):
            self.stream.append(lane, kind)

    def append_sweep(self) -> None:
        """One more sweep, in every partition."""
        self.stream.append_sweep()

    def finish_tick(self, relay: int) -> None:
        """A relay begins with its next tick."""
        self.stream.finish_tick(relay)

    def publish_again(self, relay: int, first: int) -> None:
        """A relay publishes its tick again."""
        self.stream.publish_again(relay, first)

    def pass_time(self, milliseconds: int) -> None:
        """Time passes."""
        self.store.now += milliseconds

    def poison_lane(self, lane: str, poison: Poison) -> None:
        """The sink refuses what that lane brings, until it rests."""
        self.poison[lane] = poison

    def cure(self) -> None:
        """The sink refuses nobody's events any more."""
        self.poison.clear()

    def switch(self, service: Service, up: bool) -> None:
        """A service stops answering, or answers again."""
        (self.down.discard if up else self.down.add)(service)

    def deliver_late(self) -> None:
        """A call whose caller gave up arrives after all."""
        if not self.late:
            return
        before = dict(self.kafka.positions)
        with suppress(PipelineError):
            self.late.pop(0)()
        self._set_back |= {number for number in NUMBERS if self.kafka.positions[number] < before[number]}
        self.check_committed()

    def retain(self, number: int) -> None:
        """Kafka forgets what nobody needs any more: what of every lane is accepted, or copied."""
        rows = self.books.rows.get(number, {})
        found = by_lane(self.archive.listed(number, rows.keys()))
        needed = [
            self.kafka.positions[number],
            *(covered(found.get(lane, ()), row.first) for lane, row in rows.items()),
        ]
        needed += [one.offset for one in self.books.open.values() if one.offset is not None]
        if not self.late:
            self.kafka.begin[number] = max(self.kafka.begin[number], min(needed))

    def fill_store(self, full: bool) -> None:
        """Redis takes no more events, or takes them again."""
        self.store.full = full

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
        elif kind == "news":
            self.store.news.clear()
        elif lane is not None:
            self._damage(kind, name, lane)

    def _damage(self, kind: Damage, name: str, lane: MemoryLane) -> None:
        if kind in ("lane", "list", "due"):
            self.store.due.pop(name, None)
        if kind == "lane":
            del self.store.lanes[name]
        elif kind in ("list", "tail"):
            lane.entries = lane.entries[:-1] if kind == "tail" else []
        elif kind != "due":
            setattr(lane, kind, None)
        if not lane.entries:
            self.store.due.pop(name, None)

    # Promises

    def check_committed(self) -> None:
        """No committed offset is above what nobody accepted, unless a row says so, or a sweep of which nobody knows."""
        for number, position in self.kafka.positions.items():
            rows, waits = self.books.rows.get(number, {}), self.books.waits.get(number, {})
            self.stream.require_done(number, position, rows, waits)

    def settle(self, rounds: int = 120) -> None:
        """No more trouble: everything must come to rest, first beside the lanes that people hold, then those too."""
        self._calm_down()
        for resuming in (False, True):
            if not any(self._at_rest(resuming, number) for number in range(rounds)):
                raise Broken(f"not at rest: {self._unrest()}")

    def _calm_down(self) -> None:
        self.store.full = self.books.paused = False
        self.down.clear()
        self.poison.clear()
        for bridge in self.bridges:
            bridge.wire.troubles.clear()
        while self.late:
            self.deliver_late()
        # A commit that arrives behind a newer one sets a position back until the partition's next commit.
        for number in self._set_back:
            self.append(next(lane for lane in LANES if number_of(lane) == number))

    def _at_rest(self, resuming: bool, round_number: int) -> bool:
        if self._is_done(resuming):
            return True
        if resuming and round_number % 10 == 0:
            for lane in LANES:
                self.let_go(lane)
        self.pass_time(1000)
        for slot in range(len(self.bridges)):
            self.run_bridge(slot)
        for slot in range(WORKERS):
            self.turn(slot)
        return False

    def _is_done(self, resuming: bool) -> bool:
        if any(self.kafka.positions[number] != self.kafka.end(number) for number in NUMBERS):
            return False
        if self.books.open:
            return False
        rows = [row for lane in LANES if (row := self.row(lane)) is not None]
        if not resuming:
            held = {row.lane for row in rows if row.state != "running"}
            return len(held) == len(rows) and all(
                story.complete() or name in held for name, story in self.stream.stories.items()
            )
        waiting = any(self.books.waits.values())
        return not rows and not waiting and all(story.complete() for story in self.stream.stories.values())

    def _unrest(self) -> str:
        rows = [row for lane in LANES if (row := self.row(lane)) is not None]
        missing = {
            name: story.events[story.done]
            for name, story in self.stream.stories.items()
            if not story.complete()
        }
        ends = {number: self.kafka.end(number) for number in NUMBERS}
        return (
            f"committed {self.kafka.positions} of {ends}, {rows}, missing {missing}, open {self.books.open}"
        )
