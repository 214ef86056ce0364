"""docs/consumers.md: its example runs, its table of settings is the settings'."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.consumer import Outcome, Rejection, SweepOrder, Turn
from pipeline.lanes.claim import Claim, ClaimedLane, Entry
from pipeline.lanes.turn import Backoff, Consumption, run_turn
from pipeline.settings import Configuration, Consumer
from tests.fakes.turns import event, lane, row, turn, version

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "consumers.md").read_text()


def block(language: str, number: int = 0) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found[number])


def example(folder: Path) -> Callable[[Turn], None]:
    names: dict[str, Any] = {}
    exec(compile(block("python"), "docs/consumers.md", "exec"), names)
    names["FOLDER"] = folder
    handler: Callable[[Turn], None] = names["handle"]
    return handler


def claim() -> Claim:
    kinds = ["payment", "secret", "payment"]
    entries = tuple(
        Entry(n, msgspec.json.encode(event(n + 1, row(n), merchant="6", type_=kind)))
        for n, kind in enumerate(kinds)
    )
    return Claim(1, (ClaimedLane("6", 0, 0, entries),))


def run(handler: Callable[[Turn], None], aside: list[Rejection]) -> tuple[Outcome, ...]:
    consumption = Consumption("audit", handler, aside.extend, Backoff(lambda: 0.0), partitions=1)
    return run_turn(consumption, claim()).outcomes


def test_the_example_does_what_it_says(tmp_path: Path) -> None:
    aside: list[Rejection] = []
    assert run(example(tmp_path / "audit"), aside) == (Outcome("6", 3, "done"),)
    lines = [json.loads(line) for line in (tmp_path / "audit" / "6.jsonl").read_text().splitlines()]
    assert [line["row"]["id"] for line in lines] == [0, 2]
    assert [rejection.reason for rejection in aside] == ["secrets are not audited"]


def test_the_example_knows_when_its_sink_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    outcomes = run(example(tmp_path / "file" / "audit"), [])
    assert outcomes == (Outcome("6", 0, "unavailable", reason="the audit folder cannot be written"),)


def test_the_example_that_keeps_rows_sweeps_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python", 1), "docs/consumers.md", "exec"), names)
    other = msgspec.structs.replace(event(2, row(2)), src="gateway1")
    names["handle"](turn(lane(event(1, row(1)), other, event(3, row(3)), event(10, row(4)))))
    order = SweepOrder(
        "rows", "a", "gateway0", "public.payments", "payment", None, version(10), "snapshot",
        (5,), frozenset({("6", "3")}),
    )  # fmt: skip
    assert (names["sweep"](order), names["sweep"](order)) == (1, 0)
    names["handle"](turn(lane(event(9, row(1)))))
    left = names["rows"].execute("SELECT key FROM rows WHERE NOT deleted ORDER BY key").fetchall()
    names["rows"].close()
    assert left == [("2",), ("3",), ("4",)]


def test_its_configuration_is_accepted() -> None:
    data = tomllib.loads(f'[deployment]\nname = "d"\n[sources]\n{block("toml")}')
    assert Configuration.model_validate(data).consumers["audit"].group == 20


@pytest.mark.parametrize("name", sorted(Consumer.model_fields))
def test_every_setting_is_on_the_page(name: str) -> None:
    rows = [
        line.split("|")[1:3]
        for line in PAGE.split("## Settings of a consumer")[1].splitlines()
        if "|" in line
    ]
    (default,) = [cell for names, cell in rows if f"`{name}`" in names]
    expected = Consumer.model_fields[name].default
    if isinstance(expected, str):
        assert default.strip() == f'`"{expected}"`'
