"""A writer's settings reach no image, though a trigger's function has only those fixed that its columns' types read."""

from typing import Any

import pytest

from tests.integration.captured import Captured

pytestmark = pytest.mark.integration

# Each in a table of its own: one column that reads a setting would fix it for its neighbours.
ALONE = {
    "smallint": "1",
    "bigint": "9007199254740993",
    "numeric": "1.50",
    "text": "'t'",
    "varchar(9)": "'v'",
    "char(3)": "'c'",
    "boolean": "true",
    "uuid": "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'",
    "json": """'{"a": 1}'""",
    "jsonb": """'{"a": 1}'""",
    "inet": "'10.0.0.1'",
    "timestamptz": "timestamptz '2026-01-02 00:00+00'",
    "timestamp(3)": "timestamp '2026-02-01 01:02:03'",
    "date": "date '2026-02-01'",
    "time": "time '01:02:03'",
    "real": "0.123456",
    "double precision": "0.30000000000000004",
    "bytea": r"bytea '\x00ff'",
    "text[]": "'{a,NULL}'",
    "date[]": "array[date '2026-02-01']",
    "interval": "interval '1 year 2 days'",
    "timetz": "timetz '12:00+02'",
    "day": "date '2026-02-01'",
    "tstzrange": "tstzrange(timestamptz '2026-01-02 00:00+00', null)",
}
NO_KEY = {"json"}
STRANGE = (
    "set timezone = 'Asia/Kolkata'; set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard';"
    " set extra_float_digits = -3; set bytea_output = 'escape'"
)


@pytest.mark.parametrize("place", ["column", "key", "rule"])
def test_no_setting_reaches_the_image_of_any_type(captured: Captured, place: str) -> None:
    # Mutants: a type that reads a setting taken for one that reads none, in an image; the same in a key and under a rule.
    kinds = {kind: literal for kind, literal in ALONE.items() if place != "key" or kind not in NO_KEY}
    captured.run("create domain day as date")
    chosen: dict[str, dict[str, Any]] = {}
    for number, kind in enumerate(kinds):
        key = "id, v" if place == "key" else "id"
        captured.run(
            f"create table t{number} (id integer, merchant_id integer, v {kind}, primary key ({key}))"
        )
        chosen[f"t{number}"] = {"columns": {"v": "last4"}} if place == "rule" else {}
    captured.install_tables(**chosen)
    with captured.writer() as usual, captured.writer() as strange:
        strange.execute(STRANGE)
        for number, literal in enumerate(kinds.values()):
            usual.execute(f"insert into t{number} values (1, 6, {literal})")
            strange.execute(f"insert into t{number} select 2, 6, v from t{number} where id = 1")

    events = captured.drain()

    assert len(events) == 2 * len(kinds)
    for one, other in zip(events[::2], events[1::2], strict=True):
        assert other.row() == one.row() | {"id": 2}
        assert other.key == one.key | {"id": 2}
