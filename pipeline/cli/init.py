"""``pipeline init``: a pipeline.toml for a database that exists."""

from __future__ import annotations

import click

from pipeline import settings as configuration
from pipeline.capture.proposal.propose import propose
from pipeline.capture.proposal.toml import render
from pipeline.environment import postgres_url_problem
from pipeline.errors import ConfigurationError


@click.command()
@click.argument("url", required=False)
@click.option("--source", help="The source's name in pipeline.toml; without it, like the database's.")
@click.option(
    "--merchant-column", help="The column in which tables keep the merchant's id; without it, guessed."
)
def init(url: str | None, source: str | None, merchant_column: str | None) -> None:
    """Look at a database and print a proposed pipeline.toml, with a comment on everything that is a guess.

    URL is postgresql://…; without it, SOURCE's variable (GATEWAY0_DATABASE_URL for --source gateway0) is taken from the
    environment or .env, where other users of the machine do not see it. Reads only, a few hundred rows of each table;
    shows no value of any row.
    """
    if source is not None and not configuration.NAME.fullmatch(source):
        raise click.BadParameter(
            "lower-case letters, digits and _, beginning with a letter", param_hint="--source"
        )
    if url is None:
        if source is None:
            raise click.UsageError("give URL, or --source NAME and its URL in NAME_DATABASE_URL")
        url = configuration.source_url_of(source)
    if not url:
        raise ConfigurationError(
            (f"environment: {source.upper() if source else ''}_DATABASE_URL is required",)
        )
    problem = postgres_url_problem(url)
    if problem:
        raise ConfigurationError((f"the URL {problem}",))
    click.echo(render(propose(url, source, merchant_column)), nl=False)
