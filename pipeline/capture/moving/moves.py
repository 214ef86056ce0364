"""A move, step by step: what is done is noted, and done again it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from pipeline.capture import away
from pipeline.capture.moving import copying, fitness
from pipeline.capture.moving.ends import Ends
from pipeline.capture.moving.waiting import Waiting
from pipeline.control import actions, placements, snapshots
from pipeline.control.database import ControlDatabase
from pipeline.control.placements import Placement, Step
from pipeline.errors import ConfigurationError, PermanentError
from pipeline.failpoints import passes


@dataclass(frozen=True, slots=True)
class Orders:
    """What the operator said. ``copied``: a tool of his own has brought the rows. ``frozen`` asks whether nobody writes."""

    actor: str
    reason: str
    copied: bool
    frozen: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Voice:
    """How a move speaks: ``tell`` a finished step, ``wait`` a moment with what it waits for, ``advance`` the copy."""

    tell: Callable[[str], None]
    wait: Callable[[str], None]
    advance: copying.Advance


class Move:
    """One merchant's move; nobody else may work at it meanwhile (`placements.alone`)."""

    def __init__(
        self, database: ControlDatabase, ends: Ends, merchant: str, orders: Orders, voice: Voice
    ) -> None:
        self._database = database
        self._ends = ends
        self._source, self._target = ends.source.connection, ends.target.connection
        self._merchant = merchant
        self._orders = orders
        self._voice = voice
        self._waiting = Waiting(database, ends, voice.wait)

    def run(self) -> list[str]:
        """Go on from the last step that is done to the end; the statements that delete what is left in the source."""
        placement = self._begun()
        steps: dict[Step, Callable[[Placement], Step]] = {
            "checked": self._send_away_from_target,
            "away_target": self._ask_for_frost,
            "frozen": self._send_away_from_source,
            "away_source": self._drain,
            "drained": self._copy,
            "copied": self._raise,
            "raised": self._decide,
            "homing": self._bring_home,
            "home": self._request_snapshot,
            "snapshot": self._finish,
        }
        while placement.finished_at is None:
            done = steps[placement.step](placement)
            placement = placements.advance(self._database, self._merchant, done)
            self._voice.tell(self._TOLD[done].format(**self._words))
        return copying.deletions(self._ends.source, self._merchant)

    _TOLD: dict[Step, str] = {  # noqa: RUF012  a constant
        "away_target": "away in {target}: the copy will be told by nobody",
        "frozen": "writes of {merchant} in {source} are frozen",
        "away_source": "away in {source}",
        "drained": "everything it ever did in {source} is published",
        "copied": "its rows are in {target}",
        "raised": "{target} works under a generation above that of {source}",
        "homing": "from here on nothing leads back",
        "home": "at home in {target}: from now on the application writes there",
        "snapshot": "a snapshot of {merchant} in {target} is requested",
        "done": "{merchant} has moved from {source} to {target}",
    }

    @property
    def _words(self) -> dict[str, str]:
        return {
            "merchant": self._merchant,
            "source": self._ends.source.name,
            "target": self._ends.target.name,
        }

    def _begun(self) -> Placement:
        """The move that is under way, or a new one."""
        ends, merchant = self._ends, self._merchant
        placement = placements.load(self._database, merchant)
        ours = (ends.source.name, ends.target.name)
        if placement is not None and placement.finished_at is None:
            if (placement.source, placement.target) == ours and placement.step != "revoking":
                self._voice.tell(f"goes on after: {placement.step}")
                return placement
            if placement.step == "revoking":
                raise PermanentError(
                    f"the move of {merchant} is being revoked", hint="run the same with --revoke"
                )
        fitness.require(self._database, ends, merchant, copied=self._orders.copied)
        held = copying.has_rows(self._target, ends.target.tables.values(), merchant)
        self._record("begun")
        begun = placements.begin(
            self._database, merchant, ends.source.name, ends.target.name, self._orders.reason, held=held
        )
        passes("move.checked")
        return begun

    def _send_away_from_target(self, _: Placement) -> Step:
        away.send_away(self._target, self._merchant)
        passes("move.away_target")
        return "away_target"

    def _ask_for_frost(self, _: Placement) -> Step:
        """Before anybody has to stand still: a snapshot of the source at work would end by sweeping the merchant away."""
        self._waiting.for_snapshots_at_work(self._merchant)
        if not self._orders.frozen():
            raise PermanentError(
                f"writes of {self._merchant} in {self._ends.source.name} must be frozen first",
                hint="freeze them in the application, then run this again with --frozen",
            )
        passes("move.frozen")
        return "frozen"

    def _send_away_from_source(self, _: Placement) -> Step:
        away.send_away(self._source, self._merchant)
        passes("move.away_source")
        return "away_source"

    def _drain(self, _: Placement) -> Step:
        """Whatever happened before it went away has ended, and Kafka has it."""
        self._waiting.for_what_is_older(away.send_away(self._source, self._merchant))
        self._waiting.for_the_relay()
        passes("move.drained")
        return "drained"

    def _copy(self, placement: Placement) -> Step:
        mine = bool(placement.detail.get("mine"))
        moved = self._compare() if self._orders.copied else self._replace(mine=mine)
        placements.advance(
            self._database,
            self._merchant,
            placement.step,
            rows={type_: asdict(content) for type_, content in moved.items()},
        )
        passes("move.copied")
        return "copied"

    def _replace(self, *, mine: bool) -> copying.Contents:
        def claim() -> None:
            placements.advance(self._database, self._merchant, "drained", mine=True)

        return copying.copy(self._ends, self._merchant, mine=mine, claim=claim, advance=self._voice.advance)

    def _compare(self) -> copying.Contents:
        """A tool of one's own may give rows other keys, so they are counted only."""
        ends = self._ends
        here = copying.contents(self._source, ends.source.tables.values(), self._merchant)
        there = copying.contents(self._target, ends.target.tables.values(), self._merchant)
        differences = tuple(
            f'type "{type_}": {ends.source.name} has {content.rows:,} rows of merchant {self._merchant},'
            f" {ends.target.name} has {there[type_].rows:,}"
            for type_, content in here.items()
            if content.rows != there[type_].rows
        )
        if differences:
            raise ConfigurationError(differences)
        return here

    def _raise(self, _: Placement) -> Step:
        """Every version that the source ever published of the merchant is below all that the target will publish."""
        self._waiting.for_a_higher_generation()
        passes("move.raised")
        return "raised"

    def _decide(self, placement: Placement) -> Step:
        """The last look before nothing leads back: all that the steps before have made must hold still."""
        for end in (self._ends.source, self._ends.target):
            if self._merchant not in away.merchants(end.connection):
                raise PermanentError(
                    f"{self._merchant} is no longer away in {end.name}",
                    hint="revoke the move and begin it again",
                )
        self._waiting.for_a_higher_generation()
        now = copying.contents(self._source, self._ends.source.tables.values(), self._merchant)
        if {type_: asdict(content) for type_, content in now.items()} != placement.detail["rows"]:
            placements.advance(self._database, self._merchant, "drained")
            raise PermanentError(
                f"rows of {self._merchant} in {self._ends.source.name} have changed since they were copied: its writes are not frozen",
                hint="freeze them, then run this again: it copies again",
            )
        self._record("decided")
        passes("move.decided")
        return "homing"

    def _bring_home(self, _: Placement) -> Step:
        away.bring_home(self._target, self._merchant)
        passes("move.home")
        return "home"

    def _request_snapshot(self, _: Placement) -> Step:
        ends = self._ends
        request = snapshots.request(
            self._database, ends.target.name, merchant=self._merchant, replaces=ends.source.name
        )
        placements.advance(self._database, self._merchant, "home", snapshot=request)
        passes("move.snapshot")
        return "snapshot"

    def _finish(self, placement: Placement) -> Step:
        state = self._waiting.for_snapshot(int(placement.detail["snapshot"]))
        if state.status == "failed":
            placements.advance(self._database, self._merchant, "home")
            raise PermanentError(
                f"snapshot {state.id} of {self._merchant} in {self._ends.target.name} failed: {state.detail}",
                hint="run this again: it asks for another",
            )
        self._record("done")
        passes("move.done")
        return "done"

    def _record(self, what: str) -> None:
        details = {"from": self._ends.source.name, "to": self._ends.target.name, "what": what}
        orders = self._orders
        actions.record(
            self._database,
            actor=orders.actor,
            verb="merchants move",
            subject=self._merchant,
            reason=orders.reason,
            details=details,
        )
