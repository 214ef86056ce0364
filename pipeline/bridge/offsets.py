"""What of a partition is read but not yet done: the events of its lanes, what belongs to none, sweeps; the smallest of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.bridge.aside import Aside
from pipeline.bridge.belonging import Belonging, key_of
from pipeline.bridge.detached import Detached, Need, Slowest
from pipeline.bridge.doubles import Doubles
from pipeline.bridge.pending import Lane, PendingLanes, grouped
from pipeline.domain.routing import lane_of, merchant_of_lane
from pipeline.ports import Append, Appended, DetachedRow, Detachment, News, Record, State, Tenure


class Partition:
    """Everything this bridge knows about one partition since it took it over at `committed`.

    `number` is numbered through topics of so many `partitions`: those beyond hold the rows that snapshots read. A lane is
    fed by the live reader, or it is detached and open (its ``until`` is None): passed over by it. No lane may be handed over
    below ``may_be_committed``: when that commit arrives, its row must speak for what is passed.
    """

    def __init__(
        self,
        number: int,
        partitions: int,
        tenure: Tenure,
        committed: int,
        doubles: Doubles | None = None,
        rows: Iterable[DetachedRow] = (),
    ) -> None:
        self.number = number
        self.tenure = tenure
        self.committed, self.may_be_committed = committed, 0
        self.doubles = doubles or Doubles(committed, {})
        self.position = committed
        self.end = 2**63  # of the partition, when it was taken over
        self.size = 0
        self.belonging = Belonging(number, partitions)
        self.aside = Aside(number, self.belonging.own_number, snapshot=self.snapshot)
        self.detached: dict[bytes, Detached] = {}
        self.feedable: set[bytes] = set()
        self.needs: dict[bytes, Need] = {}
        self._lanes: dict[bytes, Lane] = {}
        self._pending = PendingLanes()
        self._unsent: dict[bytes, Lane] = {}
        self._unsynced: dict[bytes, Detached] = {}
        self._slowest = Slowest()
        for row in rows:
            self._add_detached(row)

    @property
    def snapshot(self) -> bool:
        """True when it holds rows that snapshots read."""
        return self.belonging.snapshot

    @property
    def pending_lanes(self) -> int:
        """Lanes with events that no sink has accepted yet, without those that are detached."""
        return len(self._pending)

    @property
    def waiting(self) -> bool:
        """True while something read is neither in its lane nor set aside."""
        return bool(self._unsent or self.aside.strange)

    # Reading

    def receive(self, records: Sequence[Record], now: float, lane_bytes: int) -> None:
        """Take the next records, by merchant; what belongs to no lane waits to be set aside, doubles go.

        A lane that has more than `lane_bytes` pending needs to be detached.
        """
        for key, (offsets, values) in grouped(self.doubles.without(records)).items():
            if key is None:
                self.aside.take(offsets, values)
            elif not self._passes_over(key):
                self._distribute(key, offsets, values, now, lane_bytes)
        self.position = records[-1].offset + 1

    def _passes_over(self, key: bytes) -> bool:
        detached = self.detached.get(key)
        return detached is not None and detached.until is None

    def _distribute(
        self, key: bytes, offsets: list[int], values: list[bytes | None], now: float, lane_bytes: int
    ) -> None:
        lane = self._lane(key)
        if lane is None:
            self.aside.put(offsets, values, self.belonging.strangeness(key))
            return
        present = self._enter(lane, key, offsets, values, now)
        if present and self._size_of(key, lane) > lane_bytes:
            self.needs.setdefault(key, Need(f"more than {lane_bytes} bytes waited"))

    def _enter(
        self, lane: Lane, key: bytes, offsets: list[int], values: list[bytes | None], now: float
    ) -> bool:
        """Append records to a lane, those without value aside; True when there was one to append."""
        if None in values:
            offsets, values = self.aside.without_empty(merchant_of_lane(lane.name), offsets, values)
        if not values:
            return False
        idle, before = not lane.chunks, lane.size
        lane.receive(offsets, values, now)  # type: ignore[arg-type]  # no None is left; a copy would only tell mypy
        self.size += lane.size - before
        self._unsent[key] = lane
        if idle and not self._passes_over(key):
            self._pending.enter(key, lane)
        return True

    def _size_of(self, key: bytes, lane: Lane) -> int:
        detached = self.detached.get(key)
        return lane.size + (detached.lane.size if detached else 0)

    def _lane(self, key: bytes) -> Lane | None:
        lane = self._lanes.get(key)
        if lane is None:
            name = self.belonging.lane(key)
            if name is None:
                return None
            lane = self._lanes[key] = Lane(name)
        return lane

    # Appending

    def appends(self, *, fed: bool = False) -> Iterator[Append]:
        """What the live reader has read, or the cursors if `fed`: one part per lane, save for lanes to be detached first."""
        for key, lane in self._unsent.items():
            if key in self.needs or self._passes_over(key) is not fed:
                continue
            chunk = lane.unsent
            assert chunk is not None  # _unsent holds exactly the lanes that have one
            yield Append(lane.name, self.number, lane.previous, chunk.offsets, chunk.values, lane.incarnation)

    def answered(self, reply: Appended, now: float) -> None:
        """A lane has answered: it holds everything read for it, or it is damaged, or parked.

        One that ends beyond its partition is of a topic that was made anew since: what it is given it would take for old.
        """
        key = key_of(reply.lane)
        if reply.damaged or reply.enqueued >= max(self.end, self.position):
            self.needs.setdefault(key, Need("damaged: what the lane store has of it does not fit"))
            return
        lane = self._fed(key)
        if lane is None:
            return
        self._unsent.pop(key, None)
        lane.incarnation = reply.incarnation
        lane.appended(reply.enqueued, now)
        self._accept(key, reply.acknowledged, reply.parked)

    def _fed(self, key: bytes) -> Lane | None:
        """The lane that is appended to: a cursor's, or the live reader's."""
        return self.detached[key].lane if self._passes_over(key) else self._lanes.get(key)

    def accept(self, news: News) -> None:
        """The sink has accepted a lane up to there. What another incarnation says is ignored."""
        key = key_of(news.lane)
        fed = self._fed(key)
        if fed is not None and fed.incarnation == news.incarnation:
            self._accept(key, news.acknowledged, news.parked)

    def _accept(self, key: bytes, acknowledged: int, parked: str | None) -> None:
        detached = self.detached.get(key)
        if detached is not None:
            self.size -= detached.accept(acknowledged)
        self.size -= self._pending.accept(key, acknowledged)
        if parked is not None:
            self.needs[key] = Need(parked, "parked")

    # How far everything is done

    def smallest_pending(self) -> int | None:
        """The smallest offset that is not done: no sink has accepted it, it is not set aside, it is a sweep not passed.

        Detached lanes do not count: their rows say what of them is not done.
        """
        found = [
            offset for offset in (self._smallest_event(), self.aside.smallest_control()) if offset is not None
        ]
        return min(found, default=None)

    def _smallest_event(self) -> int | None:
        smallest = self._pending.smallest()
        found = [rejection.offset for rejection in self.aside.strange]
        return min(found if smallest is None else [smallest, *found], default=None)

    def look_at_sweeps(self) -> None:
        """See which sweeps may pass: everything before them is done, by the live lanes and by the detached ones."""
        events = self._smallest_event()
        slowest = self._slowest.first(self.detached)
        self.aside.look_at_sweeps(self.position if events is None else events, slowest)

    def overdue(self, now: float, age: float, limit: int) -> list[Append]:
        """Empty appends for lanes that were silent for `age` seconds while something of them is pending."""
        appends: list[Append] = []
        for key, lane in self._with_something_pending():
            if key in self._unsent or key in self.needs or lane.answered_at > now - age:
                continue
            if lane.chunks and lane.chunks[0].read_at > now - age:
                continue
            appends.append(Append(lane.name, self.number, lane.previous, (), (), lane.incarnation))
            if len(appends) == limit:
                break
        return appends

    def _with_something_pending(self) -> Iterator[tuple[bytes, Lane]]:
        yield from self._pending.items()
        for key, detached in self.detached.items():
            previous = detached.lane.previous
            waits = detached.synced and previous is not None and detached.first <= previous
            if waits and key not in self._pending and (lane := self._fed(key)) is not None:
                yield key, lane

    # Detaching

    def slow(self, now: float, age: float, behind: int) -> None:
        """Lanes whose oldest event waits for `age` seconds and `behind` records need to be detached."""
        for key in self._pending.slow(self.position - behind, now - age):
            self.needs.setdefault(key, Need(f"its oldest event waited for more than {age:.0f} s"))

    def first_of(self, lane: str) -> int:
        """The first offset of a lane that is neither accepted nor stored aside, or the next one to read."""
        key = key_of(lane)
        detached = self.detached.get(key)
        stands = detached.first if detached and not detached.finished else self._pending.head(key)
        found = self.position if stands is None else stands
        return min([found, *self.aside.strange_of(merchant_of_lane(lane))])

    def accepted_by_running(self) -> int:
        """Everything below is committed, and accepted by every detached lane that runs."""
        return min([self.committed, *(self.detached[key].first for key in self.feedable)])

    def state_of(self, lane: str) -> State:
        """Whether it is fed."""
        detached = self.detached.get(key_of(lane))
        return "running" if detached is None else detached.state

    def needed(self, limit: int) -> list[Detachment]:
        """What has to be written for lanes that are to be detached; one that a person holds stays held."""
        found = []
        for key, need in list(self.needs.items())[:limit]:
            lane = lane_of(key.decode(), snapshot=self.snapshot)
            state = self.state_of(lane)
            kept = need.state is None or state != "running"
            found.append(
                Detachment(lane, self.first_of(lane), state if kept else need.state or state, need.reason)
            )
        return found

    def detach(self, written: Detachment, incarnation: int) -> None:
        """That is written: forget the lane as it was."""
        key = key_of(written.lane)
        self.needs.pop(key, None)
        self._unsent.pop(key, None)
        for lane in (self._lanes.pop(key, None), self.detached[key].lane if key in self.detached else None):
            self.size -= 0 if lane is None else lane.size
        self._pending.forget(key)
        self._add_detached(
            DetachedRow(written.lane, written.first, None, incarnation, written.state, written.reason)
        )

    def _add_detached(self, row: DetachedRow) -> None:
        key = key_of(row.lane)
        self.detached[key] = self._unsynced[key] = Detached.of(row)
        self._slowest.enter(key, row.first)
        self.feedable.discard(key)
        if row.state == "running":
            self.feedable.add(key)

    def unsynced(self, limit: int) -> list[Detached]:
        """Detached lanes of whose incarnation the lane store has not been told."""
        return [lane for key, lane in self._unsynced.items() if key not in self.needs][:limit]

    def synced(self, reply: Appended, now: float) -> None:
        """The lane store has answered a reset: a cursor may feed the lane from there."""
        key = key_of(reply.lane)
        self.answered(reply, now)
        if key not in self.needs:
            self.detached[key].synced = True
            del self._unsynced[key]

    def feed(self, key: bytes, offsets: list[int], values: list[bytes | None], now: float) -> None:
        """Records of a detached lane, read by a cursor."""
        self._enter(self.detached[key].lane, key, offsets, values, now)

    def unsent(self, key: bytes) -> bool:
        """True while something read of that lane is not in it."""
        return key in self._unsent

    def hand_over(self, key: bytes, until: int) -> None:
        """From here on the live reader feeds that lane; it has read everything below."""
        self._lanes[key] = self.detached[key].hand_over(until)
        self.feedable.discard(key)

    def close(self, key: bytes) -> None:
        """That lane is like any other again."""
        del self.detached[key]
