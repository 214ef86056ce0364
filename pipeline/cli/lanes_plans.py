"""What a verb would do to a lane: which events of the merchant it concerns, and why it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.bridge.ranges import Range
from pipeline.bridge.topics import Place
from pipeline.cli.lanes_places import Ground, Standing, counting
from pipeline.cli.terminal import moment, plain
from pipeline.control.requests import Asked
from pipeline.errors import PermanentError, PipelineError, PositionLostError, TransientError
from pipeline.ports import Verb
from pipeline.replay.tally import Tally, begins, tally

EFFECTS: Mapping[Verb, str] = {
    "pause": "wait in Kafka until resume",
    "resume": "are delivered from now on",
    "release": "are delivered from now on, the failing one first",
    "skip": "are never delivered",
    "rewind": "are delivered again",
    "resync": "are read from Kafka again",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is ordered. ``to``: where a rewind goes to, or the first record that a skip leaves; ``count``: events to skip."""

    verb: Verb
    to: int | datetime | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One request, and the merchant's events that it concerns; ``events`` is None when nobody counted."""

    standing: Standing
    verb: Verb
    events: Tally | None = None
    offset: int | None = None
    expected: int | None = None

    def asked(self, consumer: str, actor: str, reason: str) -> Asked:
        """As the control database takes it."""
        lane, place = self.standing.lane, _place(self.standing)
        return Asked(
            consumer, place.topic, place.partition, lane, self.verb, actor, reason, self.offset, self.expected,
            self.counted(),
        )  # fmt: skip

    def counted(self) -> dict[str, object]:
        """What the events are, for the audit and for programs."""
        if self.events is None:
            return {}
        first, last = self.events.first, self.events.last
        return {
            "events": self.events.events,
            "from": first and first.offset,
            "from_at": first and moment(first.at),
            "to": last and last.offset,
            "to_at": last and moment(last.at),
        }


def plans(ground: Ground, order: Order, lanes: Sequence[Standing], *, count: bool) -> list[Plan]:
    """A plan for each lane that the order concerns. PermanentError tells all that stands against it, of every lane."""
    made: list[Plan] = []
    refused: list[PipelineError] = []
    for standing in lanes:
        try:
            made.append(_PLANS[order.verb](ground, order, standing, count))
        except (PermanentError, PositionLostError) as error:
            refused.append(error)
    if not refused:
        return made
    if len(refused) == 1:
        raise refused[0]
    raise PermanentError("; ".join(map(str, refused)), hint="nothing was asked for any of them")


def _pause(ground: Ground, order: Order, standing: Standing, count: bool) -> Plan:
    row = standing.row
    if row is not None and row.state == "paused":
        raise PermanentError(
            f"{name(ground, standing)} is paused since {moment(row.since)}: {plain(row.reason)}",
            hint=_try(ground, "show", standing),
        )
    return Plan(standing, "pause", _waiting(ground, standing) if count else None)


def _resume(ground: Ground, order: Order, standing: Standing, count: bool) -> Plan:
    return _let_go(ground, standing, order.verb, "paused", count)


def _release(ground: Ground, order: Order, standing: Standing, count: bool) -> Plan:
    return _let_go(ground, standing, order.verb, "parked", count)


def _let_go(ground: Ground, standing: Standing, verb: Verb, state: str, count: bool) -> Plan:
    if standing.state != state:
        other = {"paused": "resume", "parked": "release"}.get(standing.state)
        hint = _try(ground, other, standing) if other else _try(ground, "show", standing)
        raise PermanentError(f"{name(ground, standing)} is not {state}: {_words(standing)}", hint=hint)
    _require_row(ground, standing)
    return Plan(standing, verb, _waiting(ground, standing) if count else None)


def _resync(ground: Ground, order: Order, standing: Standing, count: bool) -> Plan:
    return Plan(standing, "resync", _waiting(ground, standing) if count else None)


def _skip(ground: Ground, order: Order, standing: Standing, _: bool) -> Plan:
    if standing.state not in ("paused", "parked"):
        raise PermanentError(
            f"{name(ground, standing)} is not stopped: {_words(standing)}; a worker may have the event in hand",
            hint="pause it first: " + _try(ground, "pause", standing),
        )
    expected = _require_row(ground, standing)
    bound = ground.bounds(_place(standing))
    end = bound.end if order.to is None else order.to
    assert isinstance(end, int)  # a skip goes to an offset
    if not expected < end <= bound.end:
        raise PermanentError(
            f"{name(ground, standing)} stands at offset {expected} of {_where(standing)}, which ends at {bound.end}",
            hint=f"--to must be above {expected} and at most {bound.end}: the first offset that is not skipped",
        )
    if order.to is None and expected < bound.first:
        raise PermanentError(
            f"{name(ground, standing)} stands at offset {expected}, and {_where(standing)} begins at {bound.first} by now:"
            " its next events cannot be counted",
            hint=f"--to {bound.first} leaves out what passed retention",
        )
    events = _tally(ground, standing, Range(max(expected, bound.first), end), order.count)
    if order.to is not None:
        return Plan(standing, "skip", events, end, expected)
    if events.last is None:
        raise PermanentError(
            f"{name(ground, standing)} has no event from offset {expected} on: there is nothing to skip",
            hint=_try(ground, "show", standing),
        )
    return Plan(standing, "skip", events, events.last.offset + 1, expected)


def _rewind(ground: Ground, order: Order, standing: Standing, _: bool) -> Plan:
    first = ground.first_of(standing)
    offset = _target(ground, order, standing)
    if offset >= first:
        raise PermanentError(
            f"{name(ground, standing)} stands at offset {first} of {_where(standing)}, not after {offset}:"
            " nothing would be replayed",
            hint="--to must lie before it; to leave events out, see: pipeline lanes skip --help",
        )
    events = _tally(ground, standing, Range(offset, first))
    if events.last is None:
        raise PermanentError(
            f"{name(ground, standing)} has no event between offsets {offset} and {first}: nothing would be replayed",
            hint="choose an earlier --to",
        )
    return Plan(standing, "rewind", events, offset)


def _target(ground: Ground, order: Order, standing: Standing) -> int:
    place = _place(standing)
    reader, bound = ground.reader(place.topic), ground.bounds(place)
    if isinstance(order.to, datetime):
        offset = reader.at(order.to, {place.partition: bound})[place.partition]
        lost = bound.first > 0 and offset <= bound.first
        wanted = moment(order.to)
    else:
        assert order.to is not None  # --to is required
        offset, wanted, lost = order.to, f"offset {order.to}", order.to < bound.first
    if not lost:
        return offset
    oldest = begins(reader, place.partition, bound)
    raise PositionLostError(
        f"{wanted} of {_where(standing)} passed retention: its first record is offset {bound.first}"
        + (f", of {moment(oldest)}" if oldest else ""),
        hint=f"--to {bound.first} replays all that is left; what is gone from Kafka comes by a snapshot:"
        f" pipeline capture snapshot SOURCE --merchant {standing.merchant}",
    )


def _require_row(ground: Ground, standing: Standing) -> int:
    """Where the stopped lane stands; a lane that was parked this moment has no row yet."""
    if standing.row is None or standing.row.state == "running":
        raise TransientError(
            f"{name(ground, standing)} was parked a moment ago, and its bridge has not put it aside yet",
            hint="try again in some seconds; no bridge running? see: pipeline status",
        )
    return standing.row.first


def _waiting(ground: Ground, standing: Standing) -> Tally:
    first, bound = ground.first_of(standing), ground.bounds(_place(standing))
    return _tally(ground, standing, Range(first, bound.end))


def _tally(ground: Ground, standing: Standing, part: Range, most: int | None = None) -> Tally:
    place = _place(standing)
    with counting(f"counting events of {standing.lane}", part) as advance:
        return tally(ground.reader(place.topic), place.partition, part, standing.merchant, advance, most)


def _place(standing: Standing) -> Place:
    assert standing.place is not None  # verbs are refused for lanes of tasks
    return standing.place


def _where(standing: Standing) -> str:
    place = _place(standing)
    return f"{place.topic} partition {place.partition}"


def name(ground: Ground, standing: Standing) -> str:
    """A lane as sentences begin with it."""
    return f"lane {standing.lane} of {ground.consumer}"


def _words(standing: Standing) -> str:
    row = standing.row
    if standing.state == "live" or row is None:
        return "it runs"
    if standing.state == "running":
        return f"it runs, fed by a cursor since {moment(row.since)}"
    return f"it is {standing.state} since {moment(row.since)}"


def _try(ground: Ground, verb: str, standing: Standing) -> str:
    reason = "" if verb == "show" else ' --reason "…"'
    return f"pipeline lanes {verb} {ground.consumer} {standing.merchant}{reason}"


_PLANS: Mapping[Verb, Callable[[Ground, Order, Standing, bool], Plan]] = {
    "pause": _pause,
    "resume": _resume,
    "release": _release,
    "skip": _skip,
    "rewind": _rewind,
    "resync": _resync,
}


def place_of(text: str) -> int | datetime:
    """OFFSET, or an ISO 8601 time with its zone; else ValueError."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{plain(text)}" is neither an offset nor an ISO 8601 time') from None
    if at.tzinfo is None:
        raise ValueError(
            f'"{plain(text)}" does not say its zone: write {text}Z for UTC, or +01:00 and the like'
        )
    return at.astimezone(UTC)
