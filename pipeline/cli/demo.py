"""``pipeline demo``: the example company, from a checkout of the repository."""

from __future__ import annotations

import click

from pipeline import settings as configuration


class _Example(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["traffic"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "traffic":
            return None
        try:
            from example.traffic_cli import traffic
        except ModuleNotFoundError as error:
            raise click.ClickException(
                "the example company is in the repository, not in the package"
            ) from error
        configuration.load()
        return traffic


@click.group(cls=_Example)
def demo() -> None:
    """The example payment company: something to capture."""
