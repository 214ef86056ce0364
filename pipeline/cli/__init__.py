"""The command line: ``pipeline COMMAND --help`` explains each. Exit codes: 0 fine, 1 a finding or failure, 2 wrong use."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from pipeline.errors import ConfigurationError, PipelineError

# Where each command lives and what it is for: loaded when asked for, so that `pipeline bridge` does not import Celery or
# FastAPI, and a list of all imports none.
_COMMANDS = {
    "api": (
        "pipeline.cli.api:api",
        "Serve merchant search over HTTP on 127.0.0.1 at $PORT, until SIGTERM",
    ),
    "bench": (
        "bench.cli:bench",
        "Measure the pipeline on this machine's services; from a checkout of the repository",
    ),
    "bridge": (
        "pipeline.cli.bridge:bridge",
        "Append each merchant's records to its lane of CONSUMER; commit what its sink has accepted",
    ),
    "capture": (
        "pipeline.cli.capture:capture",
        "Carry every committed change of a source database into Kafka",
    ),
    "chaos": (
        "pipeline.cli.chaos:chaos",
        "Strike a consumer whose sink refuses gaps and counts everything, and judge whether anything was lost",
    ),
    "check": (
        "pipeline.cli.check:check",
        "Check pipeline.toml and the environment, then every connection and what the services hold",
    ),
    "demo": (
        "pipeline.cli.demo:demo",
        "The example payment company: something to capture",
    ),
    "init": (
        "pipeline.cli.init:init",
        "Look at a database and print a proposed pipeline.toml, with a comment on everything that is a guess",
    ),
    "lanes": (
        "pipeline.cli.lanes:lanes",
        "Merchants' lanes: which need a person, why, and what a person can do",
    ),
    "merchants": (
        "pipeline.cli.merchants:merchants",
        "Where merchants live, and how one moves from one source to another",
    ),
    "migrate": (
        "pipeline.cli.migrate:migrate",
        "Make what the processes need: control database, topic, indices, tables",
    ),
    "rejected": (
        "pipeline.cli.rejected:rejected",
        "Events that a sink can never accept: set aside with their reason, never in the way",
    ),
    "replay": (
        "pipeline.cli.replay:replay",
        "Run CONSUMER's function again over a part of its topic, or over a file of events",
    ),
    "status": (
        "pipeline.cli.status:status",
        "Capture lag, consumer lag, lanes and who holds them, freshness of index and warehouse, moves, processes that beat",
    ),
    "verify": (
        "pipeline.cli.verify:verify",
        "Compare every captured column of every row in both sinks with the sources, beside live traffic",
    ),
    "warehouse": (
        "pipeline.cli.warehouse:warehouse",
        "The warehouse: what waits, what is loaded, what failed",
    ),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name == "bench":  # an installed package has none: it measures from the repository
                return None
            raise
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of all. An installed package has no bench: it measures from the repository."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, purpose)
                    for name, (_, purpose) in _COMMANDS.items()
                    if name != "bench" or find_spec("bench")
                ]
            )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="merchant-pipeline", prog_name="pipeline")
def pipeline() -> None:
    """Move every committed change of a merchant's rows from PostgreSQL into Elasticsearch and Redshift."""


def main() -> None:
    """Run the command line; what our own code reports is printed without a traceback."""
    # The installed script sees only the package; bench and example lie in the checkout beside it.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    try:
        pipeline(prog_name="pipeline")
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"error: {problem}", err=True)
        sys.exit(1)
    except PipelineError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
