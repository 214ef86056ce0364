"""docs/consumers.md: its example runs, its table of settings is the settings'."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from pipeline.consumer import SweepOrder
from pipeline.lanes.turn import Handler
from pipeline.replay.rehearsal import Became, change, rehearse
from pipeline.settings import Configuration, Consumer
from tests.fakes.turns import event, lane, row, turn, version

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "consumers.md").read_text()


def block(language: str, holding: str = "") -> str:
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in text]
    return str(found[0])


def example(folder: Path) -> Handler:
    names: dict[str, Any] = {}
    exec(compile(block("python"), "docs/consumers.md", "exec"), names)
    names["FOLDER"] = folder
    handler: Handler = names["handle"]
    return handler


def test_the_example_does_what_it_says(tmp_path: Path) -> None:
    changes = [change(n, "6", kind, {"id": n}) for n, kind in enumerate(["payment", "secret", "payment"])]
    became = rehearse(example(tmp_path / "audit"), changes, group=20)
    assert became == [Became("done"), Became("rejected", "secrets are not audited"), Became("done")]
    lines = [json.loads(line) for line in (tmp_path / "audit" / "6.jsonl").read_text().splitlines()]
    assert [line["row"]["id"] for line in lines] == [0, 2]


def test_the_example_knows_when_its_sink_is_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    handler = example(tmp_path / "file" / "audit")
    assert rehearse(handler, [change(1, "6", "payment", {"id": 1})]) == [
        Became("unavailable", "the audit folder cannot be written")
    ]


def test_its_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own test of the page's own example."""
    audit = ModuleType("audit")
    exec(compile(block("python"), "docs/consumers.md", "exec"), audit.__dict__)
    monkeypatch.setitem(sys.modules, "audit", audit)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python", "rehearse"), "docs/consumers.md", "exec"), names)
    tests = [names[name] for name in names if name.startswith("test_")]
    assert tests
    for test in tests:
        test(*(tmp_path for _ in inspect.signature(test).parameters))


def test_the_example_that_keeps_rows_sweeps_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block("python", "def sweep"), "docs/consumers.md", "exec"), names)
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
    data = tomllib.loads(f'[deployment]\nname = "d"\n[sources]\n{block("toml", "consumers")}')
    assert Configuration.model_validate(data).consumers["audit"].group == 20


@pytest.mark.parametrize("name", sorted(Consumer.model_fields))
def test_every_setting_is_on_the_page(name: str) -> None:
    rows = [
        line.split("|")[1:3]
        for line in PAGE.split("## Settings of a consumer")[1].split("\n## ")[0].splitlines()
        if "|" in line
    ]
    (default,) = [cell for names, cell in rows if f"`{name}`" in names]
    expected = Consumer.model_fields[name].default
    if isinstance(expected, str):
        assert default.strip() == f'`"{expected}"`'
