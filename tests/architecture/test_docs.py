"""What the papers say is what the code has: each of these fails when a page lags behind."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types
import click
import msgspec
import pytest
from click.testing import CliRunner
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline import settings
from pipeline.capture.topics import expected_configuration
from pipeline.capture.watch import Metrics as RelayMetrics
from pipeline.cli import _COMMANDS, pipeline
from pipeline.environment import Environment

REPO = Path(__file__).parents[2]
DOCS = sorted([*(REPO / "docs").rglob("*.md"), *REPO.glob("*.md")])
MODULES = sorted((REPO / "pipeline").rglob("*.py"))

SECTIONS: Mapping[str, type[BaseModel]] = {
    "`[deployment]`": settings.Deployment,
    "`[deployment.datastream]`": settings.Topic,
    "`[sources.NAME]`": settings.Source,
    "`[sources.NAME.tables]`": settings.SourceTable,
    "`merchant = { … }`": settings.Merchant,
    "`[consumers.NAME]`": settings.Consumer,
    "`[tasks]`": settings.Tasks,
    "`[search]`": settings.Search,
    "`[warehouse]`": settings.Warehouse,
}
BANNED = {"utils", "helpers", "common", "base", "core", "manager", "handler"}
NOT_YET_WRITTEN = {
    REPO / "docs/benchmarks.md",
    REPO / "docs/adr/0002-own-batch-sql-and-generated-triggers.md",
}
# To be split.
TOO_LONG = {"pipeline/capture/queue.py", "pipeline/settings.py"}
# In a thread of its own: dying there is dying anywhere after `search.bulked`.
NEVER_DIED_AT = {"search.refreshed"}


def page(name: str) -> str:
    return (REPO / "docs" / name).read_text()


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of the tables under a heading, up to the next heading."""
    _, found, rest = text.partition(f"# {title}\n")
    assert found, f"no heading {title}"
    lines = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line[:1] == "|"
    ]
    return [row for row in cells if not set(row[0]) <= set("-")][1:]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_names() -> set[str]:
    return {
        node.name
        for path in (REPO / "tests").rglob("test_*.py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


test_names.__test__ = False  # type: ignore[attr-defined]  # it names tests and is none


def failpoints() -> set[str]:
    """Every point that the product's code passes."""
    return {
        node.args[0].value
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("passes")
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_test_that_a_page_names_exists(path: Path) -> None:
    named = {name for name in quoted(path.read_text()) if re.fullmatch(r"test_[a-z0-9_]+", name)}
    assert named - test_names() == set()


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(REPO)))
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    targets = {(path.parent / link).resolve() for link in links}
    assert {target for target in targets if not target.exists()} <= NOT_YET_WRITTEN


def test_every_place_to_die_at_has_a_row_with_its_proof() -> None:
    found = {row[0].strip("`"): row for row in rows(page("guarantees.md"), "Where a process can die")}
    assert {name for name in found if re.fullmatch(r"[a-z]+\.[a-z_]+", name)} == failpoints()
    assert [name for name, row in found.items() if not quoted(row[3])] == []


def test_tests_die_at_every_place_to_die_at() -> None:
    texts = [path.read_text() for path in (REPO / "tests").rglob("*.py") if path != Path(__file__)]
    never = {point for point in failpoints() if not any(f'"{point}' in text for text in texts)}
    assert never <= NEVER_DIED_AT


@pytest.mark.parametrize("title", SECTIONS)
def test_every_setting_is_on_the_page_with_its_type_and_default(title: str) -> None:
    on_the_page = {row[0]: (row[1], row[2]) for row in rows(page("configuration.md"), title)}
    assert on_the_page == {
        f"`{field.alias or name}`": (
            _type(field),
            _default(field, on_the_page.get(f"`{field.alias or name}`")),
        )
        for name, field in SECTIONS[title].model_fields.items()
    }


def test_every_section_is_on_the_page() -> None:
    sections = {model for _, model in _models(settings.Configuration)}
    assert sections == set(SECTIONS.values())


def _models(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield name, part
                yield from _models(part)


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)


def _type(field: FieldInfo) -> str:
    parts = list(_parts(field.annotation))
    metadata = [*field.metadata, *(each for part in parts for each in _metadata(part))]
    validators = {each.func.__name__ for each in metadata if isinstance(each, AfterValidator)}
    if get_origin(field.annotation) is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(field.annotation))
    if any(isinstance(part, type) and issubclass(part, BaseModel) for part in parts):
        return "table"
    if "_duration" in validators:
        return "duration"
    if "_name" in validators:
        return "name"
    if field.annotation in (bool, bool | None):
        return "true or false"
    if get_origin(field.annotation) is tuple:
        return "list of text"
    if get_origin(field.annotation) is dict:
        return "table"
    return "integer" + _bounds(field) if field.annotation is int else "text"


def _metadata(part: Any) -> tuple[Any, ...]:
    return tuple(part.__metadata__) if get_origin(part) is Annotated else ()


def _bounds(field: FieldInfo) -> str:
    low = [each.ge for each in field.metadata if isinstance(each, annotated_types.Ge)]
    high = [each.le for each in field.metadata if isinstance(each, annotated_types.Le)]
    if low and high:
        return f", {low[0]} to {high[0]}"
    return f", at least {low[0]}" if low else ""


def _default(field: FieldInfo, said: tuple[str, str] | None) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    if field.default is None:  # taken from another setting: the page says which, in words
        words = said[1] if said else ""
        return words if words and "`" not in words else "in words"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def test_every_variable_is_on_the_page() -> None:
    on_the_page = {quoted(row[0])[0]: row[1] for row in rows(page("configuration.md"), "Environment")}
    aliases = {str(field.alias): field for field in Environment.model_fields.values() if field.alias}
    read = {
        "<SOURCE>_DATABASE_URL",
        *aliases,
        *_constants("settings.py"),
        *_constants("environment.py"),
        *_constants("failpoints.py"),
    }
    procfile = set(re.findall(r"\$([A-Z_]+)", (REPO / "Procfile").read_text()))
    assert set(on_the_page) == read | procfile
    required = {name for name, field in aliases.items() if field.default is PydanticUndefined}
    assert {name for name, default in on_the_page.items() if default == "required"} == required | {
        "<SOURCE>_DATABASE_URL"
    }


def _constants(module: str) -> set[str]:
    """What looks like a variable's name in a module that reads the environment."""
    return {
        node.value
        for node in ast.walk(tree(REPO / "pipeline" / module))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", node.value)
    }


def test_the_topics_settings_are_on_the_page() -> None:
    table = rows(page("configuration.md"), "Kafka: 4")
    deployment = settings.Deployment(name="shop")
    for column, topic in ((1, deployment.datastream), (2, deployment.progress)):
        on_the_page = {quoted(row[0])[0]: quoted(row[column])[0] for row in table if row[column] != "-"}
        assert on_the_page == expected_configuration(deployment, topic) | {
            name: value
            for name, value in (("retention.ms", "retention"), ("min.insync.replicas", "min_insync_replicas"))
            if name in on_the_page
        }


def test_every_process_is_on_the_page() -> None:
    on_the_page = {name for row in rows(page("configuration.md"), "Processes") for name in quoted(row[0])}
    lines = (REPO / "Procfile").read_text().splitlines()
    assert on_the_page == {line.partition(":")[0] for line in lines if not line.startswith("#")}


def _relay_metrics() -> set[str]:
    names = {field.name for field in fields(RelayMetrics)}
    return names - {"last_tick_at"} | {"last_tick_age_seconds"}


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("`capture-<source>`", _relay_metrics),
        (
            "`bridge-<consumer>`",
            lambda: (
                _returned_keys("pipeline/bridge/dispatcher.py") | _returned_keys("pipeline/bridge/copying.py")
            ),
        ),
        ("`worker:<queues>`", lambda: _returned_keys("tasks/app.py")),
    ],
    ids=["capture", "bridge", "worker"],
)
def test_every_metric_is_on_the_page(title: str, names: Any) -> None:
    assert {name for row in rows(page("metrics.md"), title) for name in quoted(row[0])} == names()


def _returned_keys(module: str) -> set[str]:
    """The keys of the dict that the module's function ``metrics`` returns."""
    (function,) = (
        node
        for node in ast.walk(tree(REPO / module))
        if isinstance(node, ast.FunctionDef) and node.name == "metrics"
    )
    return {
        key.value
        for node in ast.walk(function)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def _commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(words), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, (*words, name))


def test_the_list_of_commands_says_of_each_what_it_says_itself() -> None:
    told = {name: pipeline.get_command(click.Context(pipeline), name) for name in _COMMANDS}
    assert {name: purpose for name, (_, purpose) in _COMMANDS.items()} == {
        name: command and command.get_short_help_str(1000).rstrip(".") for name, command in told.items()
    }


def test_the_list_of_commands_loads_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # Mutant: without `format_commands` click loads each for its first sentence.
    monkeypatch.setattr("pipeline.cli.import_module", lambda name: pytest.fail(f"{name} is loaded"))
    shown = CliRunner().invoke(pipeline, ["--help"])
    assert shown.exit_code == 0
    assert [name for name in _COMMANDS if f"\n  {name} " not in shown.output] == []


def test_every_command_and_option_says_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    # `pipeline demo traffic` loads the settings, which are the example's.
    monkeypatch.chdir(REPO)
    monkeypatch.setattr(settings, "load", lambda: None)
    silent = []
    for name, command in _commands(pipeline, ("pipeline",)):
        if not re.match(r"[A-Z].*\.", command.help or "", re.DOTALL):
            silent.append(name)
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.help:
                silent.append(f"{name} {parameter.opts[0]}")
            if isinstance(parameter, click.Argument) and parameter.make_metavar(click.Context(command)).strip(
                "[]."
            ) not in (command.help or ""):
                silent.append(f"{name} {parameter.name}")
    assert silent == []


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(REPO)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name for name, length in lengths.items() if length > 300} <= TOO_LONG


def test_names_say_what_is_inside() -> None:
    places = [*MODULES, *(REPO / "tasks").rglob("*.py")]
    assert [path for path in places if BANNED & {path.stem, path.parent.name}] == []


def test_every_folder_says_what_it_is() -> None:
    folders = {path.parent for path in [*MODULES, *(REPO / "tasks").rglob("*.py")]}
    assert [folder for folder in sorted(folders) if not ast.get_docstring(tree(folder / "__init__.py"))] == []
