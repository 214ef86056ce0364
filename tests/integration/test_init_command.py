"""``pipeline init``: what it proposes for a database is accepted by `pipeline check` as it is, and gives nothing away."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from devstack.postgres import drop_database
from example.schema import create
from example.seed import Size, seed
from pipeline import settings
from pipeline.capture import catalog
from pipeline.capture.proposal.propose import Proposal, propose
from pipeline.capture.proposal.toml import render
from pipeline.capture.session import session
from pipeline.errors import PermanentError
from tests.conftest import REPO, SourceDatabase, at, unique

pytestmark = pytest.mark.integration

FEW = Size(
    merchants=20, customers=100, transactions=100, refunds=20, disputes=10, payouts=20, applications=20
)
CARD, SECRET = "4111111111111111", "planted-s3cret"
ODD = f"""
create type mood as enum ('sad', 'glad');
create table merchants (id bigint primary key, name text);
create table orders (id bigint primary key, merchant_id bigint not null references merchants, mood mood, tags text[],
  note text, ref bigint);
create table items (id uuid primary key, order_id bigint not null references orders, price numeric);
create index items_order on items (order_id);
create table unindexed (id bigint primary key, order_id bigint references orders);
create table grandchildren (id bigint primary key, item_id uuid not null references items);
create index grandchildren_item on grandchildren (item_id);
create table events (id bigint, at timestamptz, merchant_id bigint, primary key (id, at)) partition by range (at);
create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01');
create table cards (id bigint primary key, merchant_id bigint, card_number text, cvv text, card_type text, api_key text,
  ssn text, plain text, notes text, "_internal" text, document jsonb, holder_token text);
create table countries (code text primary key, name text);
create table log (at timestamptz, merchant_id bigint, line text);
create table late (id bigint primary key deferrable, merchant_id bigint);
create unlogged table scratch (id bigint primary key, merchant_id bigint);
create table schema_migrations (version text primary key);
create table "Odd "" Näme
[deployment]" (id bigint primary key, merchant_id bigint, "weird
column" text);
create schema other; create table other.orders (id bigint primary key, merchant_id bigint);
insert into merchants select n, 'shop ' || n from generate_series(1, 5) n;
insert into cards select n, 1, '{CARD}', '123', 'visa', 'k', '000-00-0000', '{CARD}', 'paid with 4111 1111 1111 1111', 'x',
  '{{"sk": "sk_live_abcdefghijklmnop"}}', 't' from generate_series(1, 20) n;
insert into orders select n, 1, 'sad', '{{a}}', 'n', 4000000000000000 + n from generate_series(1, 100) n;
"""


@pytest.fixture
def odd(source_database: Callable[[], SourceDatabase]) -> SourceDatabase:
    """A database with one of everything that is in the way."""
    made = source_database()
    with psycopg.connect(made.writer_url, autocommit=True) as session:
        session.execute(ODD.encode())
    return made


@pytest.fixture
def example(postgres_url: str, variables: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The payment company's databases, each with a few rows, for the pipeline's role."""
    prefix = unique("init") + "_"
    urls = create(postgres_url, variables["EXAMPLE_WRITER_URL"], prefix)
    seed(urls, FEW)
    yield {source: at(variables["CONTROL_DATABASE_URL"], f"{prefix}{source}") for source in urls}
    for source in urls:
        drop_database(postgres_url, f"{prefix}{source}")


def run(*arguments: str, directory: Path, environ: Mapping[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPO), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=90,
    )
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def accepted(proposal: Proposal, url: str) -> settings.Source:
    """The proposal as `pipeline check` reads it: the file, then the source's catalog."""
    source = settings.Configuration.model_validate(tomllib.loads(render(proposal))).sources[proposal.source]
    with session(url) as connection:
        found = catalog.read(connection, proposal.source, source)
    assert {table.name for table in found} == set(source.tables)
    return source


def test_the_example_is_proposed_as_it_is_configured_and_checked(
    example: dict[str, str], variables: Mapping[str, str], tmp_path: Path
) -> None:
    configured = settings.Configuration.model_validate(tomllib.loads((REPO / "pipeline.toml").read_text()))
    for source, url in example.items():
        proposed = accepted(propose(url, source), url)
        assert {name: table.merchant.column for name, table in proposed.tables.items()} == {
            name: table.merchant.column for name, table in configured.sources[source].tables.items()
        }
    environ = {**variables, "GATEWAY0_DATABASE_URL": example["gateway0"]}
    code, text = run("init", "--source", "gateway0", directory=tmp_path, environ=environ)
    assert code == 0
    (tmp_path / "pipeline.toml").write_text(text)
    _, output = run("check", directory=tmp_path, environ=environ)
    for line in ("✓ pipeline.toml and environment", "✓ source gateway0", "✓ consumer search"):
        assert line in output, output


def test_what_can_be_captured_of_an_odd_database_is_and_the_rest_is_explained(odd: SourceDatabase) -> None:
    proposal = propose(odd.url, "shop")
    source = accepted(proposal, odd.url)
    tables = {name: table.merchant for name, table in source.tables.items()}
    weird = 'public.Odd " Näme\n[deployment]'
    assert {name: merchant.column for name, merchant in tables.items() if merchant.column} == {
        "public.merchants": "id",
        **dict.fromkeys(
            ("public.orders", "public.events", "public.cards", "other.orders", weird), "merchant_id"
        ),
    }
    assert (tables["public.items"].parent, tables["public.items"].on) == ("public.orders", "order_id")
    assert tables["public.countries"].none and tables["public.grandchildren"].none
    reasons = dict(proposal.left_out)
    for table, words in {
        "public.log": "no primary key",
        "public.late": "deferrable",
        "public.scratch": "unlogged",
        "public.unindexed": "CREATE INDEX CONCURRENTLY",
        "public.schema_migrations": "migrations",
    }.items():
        assert words in reasons.pop(table)
    assert reasons == {}
    types = [table.type or name.split(".", 1)[1] for name, table in source.tables.items()]
    assert len(set(types)) == len(types)


def test_what_looks_like_cards_or_secrets_does_not_leave_and_is_not_shown(odd: SourceDatabase) -> None:
    # Mutant: names alone leave `plain`, `notes` and `document`; without the share of hits `ref` is taken for cards.
    proposal = propose(odd.url, "shop")
    text = render(proposal)
    cards = accepted(proposal, odd.url).tables["public.cards"]
    assert set(cards.exclude) == {"cvv", "api_key", "holder_token", "notes", "document", "_internal"}
    assert cards.columns == {"card_number": "last4", "ssn": "hash", "plain": "last4"}
    assert accepted(proposal, odd.url).tables["public.orders"].columns == {}
    for value in (CARD, "4111 1111", "sk_live_", "000-00"):
        assert value not in text


def test_the_database_cannot_be_written(odd: SourceDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    # Mutant: an ordinary transaction.
    monkeypatch.setattr(
        "pipeline.capture.proposal.propose.inventory",
        lambda session: session.execute("create table public.x ()"),
    )
    with pytest.raises(PermanentError, match="read-only transaction"):
        propose(odd.url, "shop")


def test_a_url_is_checked_and_never_echoed(tmp_path: Path) -> None:
    for url, words in {
        f"postgresql://app:{SECRET}@127.0.0.1:1/none": "does not answer",
        f"postgresql://app:{SECRET}/@h@127.0.0.1:1/none": "percent-encode",
        f"mysql://app:{SECRET}@127.0.0.1/none": "postgresql://",
    }.items():
        code, output = run("init", url, directory=tmp_path, environ={})
        assert (code, words in output, SECRET in output) == (1, True, False), output
    code, output = run("init", "--source", "shop", directory=tmp_path, environ={})
    assert (code, output) == (1, "error: environment: SHOP_DATABASE_URL is required\n")
    assert run("init", directory=tmp_path, environ={})[0] == 2
