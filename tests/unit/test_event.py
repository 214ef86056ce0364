from typing import Any

import msgspec
import pytest

from pipeline.domain.event import decode, merchant_of_key
from pipeline.errors import MalformedEventError

ENVELOPE: dict[str, Any] = {
    "e": 1, "op": "u", "src": "gateway0", "table": "public.transactions", "type": "transaction", "key": {"id": 123},
    "merchant": "6", "ver": "9288674231451648", "gen": 1, "ev": 5, "sub": 0, "txid": 9, "tick": 2, "ts_ms": 0,
    "pub_ms": 0, "schema": "9f3c", "before": {"id": 123, "amount": "1.50"}, "after": {"id": 123, "amount": "2.50"},
}  # fmt: skip


def encoded(**changes: Any) -> bytes:
    return msgspec.json.encode(ENVELOPE | changes)


def test_row_images_are_not_parsed_until_asked_for() -> None:
    event = decode(encoded(), "6")
    assert bytes(event.after) == b'{"id":123,"amount":"2.50"}'
    assert event.row() == {"id": 123, "amount": "2.50"}
    assert event.version == 9288674231451648


def test_the_row_of_a_delete_is_the_one_before() -> None:
    event = decode(encoded(op="d", after=None), "6")
    assert event.deleted
    assert event.row()["amount"] == "1.50"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "truncated"),
        (b"{not json", "malformed"),
        (
            b'{"before":' + b"[" * 100_000,
            "recursion",
        ),  # mutant: RecursionError, which the worker would try for ever
        (b"[]", "Expected `object`"),
        (encoded(e=2), "Invalid enum value 2"),
        (encoded(op="x"), "Invalid enum value 'x'"),
        (encoded(ev="5"), "Expected `int`, got `str`"),
        (encoded(surprise=1), "unknown field"),
        (encoded(key={"id": None}), "Expected `bool | int | str`"),
        (encoded(ver="-5"), "not a 63-bit number"),
        (encoded(merchant="7"), 'event of merchant "7" under the key of "6"'),
    ],
)
def test_what_is_no_event_is_refused_with_its_reason(value: bytes, reason: str) -> None:
    with pytest.raises(MalformedEventError) as caught:
        decode(value, "6")
    assert reason in str(caught.value)


def test_the_key_of_a_record_names_its_merchant() -> None:
    assert merchant_of_key(b"6") == "6"
    assert [merchant_of_key(key) for key in (None, b"", b"\xff", b"a b")] == [None] * 4
