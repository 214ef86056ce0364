"""What the recording must show: each merchant's first deliveries in commit order, every old image the newest one."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def firsts(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Each merchant's records in the order of their first delivery; repeats are left out.

    A repeat is known by key and version: a relay that replays its batch gives the same event a second offset.
    """
    seen: set[tuple[str, int]] = set()
    result: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        identity = (record["merchant"] + record["key"], record["version"])
        if identity not in seen:
            seen.add(identity)
            result[record["merchant"]].append(record)
    return result


def violations(records: Sequence[Record], since: Mapping[str, int], until: Mapping[str, int]) -> list[str]:
    """Everything that is lost, out of order or incomplete after step `since`; empty when all is well."""
    found = []
    delivered = firsts(records)
    for merchant, last in until.items():
        own = [record for record in delivered[merchant] if record["op"] != "r"]
        numbers = [record["step"] for record in own if record["op"] != "d"]
        expected = range(since[merchant] + 1, last + 1)
        if numbers != list(expected):
            found.append(f"merchant {merchant}: steps {_first_break(numbers, expected)}")
        found += _broken_images(merchant, own)
    return found


def repeats(records: Sequence[Record]) -> int:
    """How many deliveries were repetitions: allowed, and counted."""
    return len(records) - sum(len(own) for own in firsts(records).values())


def _first_break(numbers: Sequence[int], expected: range) -> str:
    for wanted, number in zip(expected, numbers, strict=False):
        if number != wanted:
            return f"go on with {number} where {wanted} was next"
    return f"{len(numbers)} of {len(expected)}"


def _broken_images(merchant: str, records: Sequence[Record]) -> list[str]:
    """An update's or delete's old image must be what was recorded last for that key."""
    newest: dict[str, Any] = {}
    found = []
    for record in records:
        key = record["key"]
        if record["op"] in ("u", "d") and key in newest and record["before"] != newest[key]:
            found.append(f"merchant {merchant}: {record['op']} of {key} has an old image that never was")
        newest[key] = record["after"]
    return found
