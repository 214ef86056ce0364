"""What a source must know of merchants that have moved, although a failover or a new install lost it."""

from __future__ import annotations

import structlog

from pipeline.capture import away
from pipeline.capture.session import Connection
from pipeline.control import placements
from pipeline.control.database import ControlDatabase


def restore(connection: Connection, database: ControlDatabase, source: str) -> None:
    """Send away who must be away here, bring home who must be at home; to be called before the relay's first batch.

    Otherwise what a former home still holds of a merchant would be told again, and under a higher generation. Moves
    under way stand still meanwhile, and what they may be changing just now is left to them.
    """
    with placements.held(database, source) as found:
        absent = set(away.merchants(connection))
        for placement in found:
            merchant = placement.merchant
            if source in placement.away and merchant not in absent:
                away.send_away(connection, merchant)
            elif source == placement.home and merchant in absent:
                away.bring_home(connection, merchant)
            else:
                continue
            structlog.get_logger().error(
                "the source had lost where a merchant lives",
                source=source,
                merchant=merchant,
                home=placement.home,
            )
