"""The command line: ``pipeline COMMAND --help`` explains each. Exit codes: 0 fine, 1 a finding or failure, 2 wrong use."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

from pipeline.errors import ConfigurationError, PipelineError

# Where each command lives: loaded when asked for, so that `pipeline bridge` does not import Celery or FastAPI.
_COMMANDS = {
    "api": "pipeline.cli.api:api",
    "bench": "bench.cli:bench",
    "bridge": "pipeline.cli.bridge:bridge",
    "capture": "pipeline.cli.capture:capture",
    "chaos": "pipeline.cli.chaos:chaos",
    "check": "pipeline.cli.check:check",
    "demo": "pipeline.cli.demo:demo",
    "init": "pipeline.cli.init:init",
    "lanes": "pipeline.cli.lanes:lanes",
    "merchants": "pipeline.cli.merchants:merchants",
    "migrate": "pipeline.cli.migrate:migrate",
    "rejected": "pipeline.cli.rejected:rejected",
    "replay": "pipeline.cli.replay:replay",
    "status": "pipeline.cli.status:status",
    "verify": "pipeline.cli.verify:verify",
    "warehouse": "pipeline.cli.warehouse:warehouse",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name].partition(":")
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name == "bench":  # an installed package has none: it measures from the repository
                return None
            raise
        assert isinstance(command, click.Command)
        return command


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
