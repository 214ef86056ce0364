"""The most memory that a relay holds on its way through one transaction of so many rows."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

from bench import proc
from bench.capture.backlog import backlog
from bench.capture.site import IMPORTS, SHOP, CaptureSite
from bench.load import MERCHANTS

_INSERT = sql.SQL("""
INSERT INTO {} (id, merchant_id, seq, request_id, amount, currency, status, card, customer, email, description, created_at)
SELECT n, n %% {} + 1, n, 'r' || lpad(n::text, 11, '0'), (n %% 5000) + 0.25, 'EUR', 'authorized', '4242',
       'customer ' || n %% 50000, 'customer' || n %% 50000 || '@shop.example', repeat('order invoice ', 7), now()
FROM generate_series(%s::bigint, %s) n
""")


def measure(site: CaptureSite, sizes: tuple[int, ...], say: Callable[[str, int, int], None]) -> list[int]:
    """Bytes (VmHWM) of a fresh relay for each size, after everything of it is in Kafka."""
    found, first = [], 1
    with backlog(site.settings.source_url(SHOP)) as queue:
        for size in sizes:
            say(f"memory: writing {size:,} rows", 0, size)
            _write(site.writer_url_of(SHOP), first, size)
            first += size
            tick = queue.tick()
            pid = site.start_relay()
            say(f"memory: relaying {size:,} rows", 0, size)
            queue.await_finished(tick)
            found.append(proc.peak_bytes(pid))
            site.stop_relay()
    return found


def _write(url: str, first: int, size: int) -> None:
    """One transaction, one statement."""
    with psycopg.connect(url) as session:
        session.execute("SET synchronous_commit = off")
        insert = _INSERT.format(sql.Identifier(IMPORTS), sql.Literal(MERCHANTS))
        session.execute(insert, (first, first + size - 1))
