"""The way back of a move, until the merchant may be at home in the target."""

from __future__ import annotations

from pipeline.capture import away
from pipeline.capture.moving import copying
from pipeline.capture.moving.ends import Ends
from pipeline.control import actions, placements, snapshots
from pipeline.control.database import ControlDatabase
from pipeline.errors import PermanentError
from pipeline.failpoints import passes


def revoke(database: ControlDatabase, ends: Ends, merchant: str, *, actor: str, reason: str) -> None:
    """Make everything as it was before: the target holds what it held, and the source tells of the merchant.

    Whatever it did in the source meanwhile was told by nobody, so a snapshot of it is requested there.
    """
    source, target = ends.source.name, ends.target.name
    placement = placements.load(database, merchant)
    if placement is None or placement.finished_at is not None:
        raise PermanentError(f"merchant {merchant} is not moving")
    if (placement.source, placement.target) != (source, target):
        raise PermanentError(f"merchant {merchant} is moving from {placement.source} to {placement.target}")
    if not placement.revocable:
        raise PermanentError(
            f"merchant {merchant} is at home in {target}",
            hint=f"end this move; then move it back from {target}",
        )
    before, mine = placement.detail["away"], bool(placement.detail.get("mine"))
    tables = ends.target.tables.values()
    if (
        not mine
        and not placement.detail["held"]
        and copying.has_rows(ends.target.connection, tables, merchant)
    ):
        raise PermanentError(
            f"{target} holds rows of merchant {merchant} that this did not copy",
            hint=f"delete them, which nobody tells of, then run this again: {'; '.join(copying.deletions(ends.target, merchant))}",
        )
    placements.advance(database, merchant, "revoking")
    passes("move.revoking")
    if mine:
        copying.delete(ends.target, merchant)
    if target not in before:
        away.bring_home(ends.target.connection, merchant)
    if merchant in away.merchants(ends.source.connection):
        away.bring_home(ends.source.connection, merchant)
    snapshots.request(database, source, merchant=merchant)
    passes("move.revoked")
    placements.advance(database, merchant, "revoked")
    actions.record(
        database,
        actor=actor,
        verb="merchants move",
        subject=merchant,
        reason=reason,
        details={"from": source, "to": target, "what": "revoked"},
    )
