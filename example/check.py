"""Is every row in both sinks as it is in PostgreSQL, and nothing else? Plain SQL and one query per index.

Shares no code with the pipeline, nor with the rest of the example. `python -m example.check` prints a line per table,
the first keys that differ, and exits 1 if any does. The databases must be at rest and the pipeline through.
"""

import json
import os
import ssl
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import click
import psycopg
import redshift_connector
from rich.console import Console
from rich.table import Table

Rows: TypeAlias = dict[tuple[str, ...], tuple[str | None, ...]]
"""By merchant and key: some columns, as text."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A table, the databases it is in, its key, and the columns to compare; `moments` are timestamps."""

    table: str
    type: str
    databases: tuple[str, ...]
    key: tuple[str, ...]
    columns: tuple[str, ...]
    moments: tuple[str, ...]


_GATEWAYS = ("gateway0", "gateway1")
CHECKED = (
    Checked("merchants", "merchant", _GATEWAYS, ("merchant_id",), ("status", "legal_name", "trading_name", "monthly_limit", "request_id"), ("created_at", "updated_at")),
    Checked("customers", "customer", _GATEWAYS, ("id",), ("status", "name", "email", "notes", "request_id"), ("created_at", "updated_at")),
    Checked("transactions", "transaction", _GATEWAYS, ("id",), ("status", "amount", "fee", "currency", "customer_name", "description", "request_id"), ("created_at", "settled_at", "updated_at")),
    Checked("refunds", "refund", _GATEWAYS, ("id",), ("transaction_id", "status", "amount", "reason", "request_id"), ("created_at", "updated_at")),
    Checked("disputes", "dispute", _GATEWAYS, ("merchant_id", "seq"), ("status", "amount", "comment", "request_id"), ("opened_at", "updated_at")),
    Checked("bank_accounts", "bank_account", ("funding",), ("id",), ("status", "holder", "bank", "request_id"), ("created_at", "updated_at")),
    Checked("payouts", "payout", ("funding",), ("id",), ("status", "period", "gross", "fees", "net", "statement_text", "request_id"), ("created_at", "updated_at")),
    Checked("applications", "application", ("apply",), ("id",), ("status", "legal_name", "expected_volume", "comment", "request_id"), ("created_at", "updated_at")),
)  # fmt: skip


def select(checked: Checked, relation: str, varchar: str) -> str:
    """The one query of both databases: merchant, key, columns, timestamps, all of them as text."""
    texts = [f"cast({name} as {varchar})" for name in ("merchant_id", *checked.key, *checked.columns)]
    moments = [f"to_char({name} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')" for name in checked.moments]
    return f"select {', '.join(texts + moments)} from {relation}"  # noqa: S608  names from the list above only


def in_postgres(checked: Checked, environment: Mapping[str, str]) -> Rows:
    """The rows of the table in all of its databases."""
    rows: list[tuple[Any, ...]] = []
    for database in checked.databases:
        with psycopg.connect(environment[f"{database.upper()}_DATABASE_URL"]) as session:
            rows += session.execute(select(checked, checked.table, "text").encode()).fetchall()
    return _keyed(checked, rows)


def in_redshift(checked: Checked, environment: Mapping[str, str], schema: str) -> Rows:
    """The rows of the type's live view."""
    url = urlsplit(environment["REDSHIFT_URL"])
    with redshift_connector.connect(
        host=url.hostname, port=url.port or 5439, database=url.path[1:], user=unquote(url.username or ""),
        password=unquote(url.password or ""), ssl=True, sslmode="verify-full", max_prepared_statements=0,
    ) as session, session.cursor() as cursor:  # fmt: skip
        cursor.execute(select(checked, f'"{schema}"."{checked.type}_live"', "varchar(65535)"))
        return _keyed(checked, list(map(tuple, cursor.fetchall())))


def in_elasticsearch(checked: Checked, environment: Mapping[str, str], deployment: str) -> Rows:
    """The documents of the type that are not marked as deleted."""
    names = [*checked.columns, *checked.moments]
    query = {
        "size": 5_000,
        "query": {"bool": {"must_not": [{"term": {"cdc.deleted": True}}]}},
        "sort": [{"_shard_doc": "asc"}],
        "_source": ["cdc.merchant", *checked.key, *names],
    }
    rows = []
    for document in _documents(environment["ELASTICSEARCH_URL"], f"{deployment}-{checked.type}-*", query):
        cdc = document["cdc"]
        key = [cdc["merchant"], *(document[name] for name in checked.key)]
        columns = [document.get(name) for name in checked.columns]
        rows.append((*key, *columns, *(_moment(document.get(name)) for name in checked.moments)))
    return _keyed(checked, rows)


def _documents(url: str, index: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
    _ask(url, f"/{index}/_refresh", {})
    point = _ask(url, f"/{index}/_pit?keep_alive=2m", {})["id"]
    try:
        while hits := _ask(url, "/_search", {**query, "pit": {"id": point, "keep_alive": "2m"}})["hits"][
            "hits"
        ]:
            yield from (hit["_source"] for hit in hits)
            query = {**query, "search_after": hits[-1]["sort"]}
    finally:
        _ask(url, "/_pit", {"id": point}, "DELETE")


def _ask(url: str, path: str, body: dict[str, Any], method: str = "POST") -> Any:
    data = json.dumps(body).encode() if body else None
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url.rstrip("/") + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60, context=_context(url)) as answer:
        return json.load(answer)


def _context(url: str) -> ssl.SSLContext | None:
    return ssl.create_default_context() if url.startswith("https") else None


def _moment(text: str | None) -> str | None:
    if text is None:
        return None
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _keyed(checked: Checked, rows: list[tuple[Any, ...]]) -> Rows:
    """By merchant and key. Raises ValueError when two rows have the same."""
    texts = [tuple(None if value is None else str(value) for value in row) for row in rows]
    width = 1 + len(checked.key)
    keyed = {tuple(map(str, row[:width])): row[width:] for row in texts}
    if len(keyed) != len(rows):
        raise ValueError(f"{checked.type}: {len(rows) - len(keyed)} keys are there twice")
    return keyed


def differing(here: Rows, there: Rows) -> list[tuple[str, ...]]:
    """The keys, merchant first, of rows that are missing there, too many there, or unlike."""
    return sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))


def check(environment: Mapping[str, str], console: Console, deployment: str = "payments") -> bool:
    """Compares all tables and prints what it finds; whether everything is equal."""
    table = Table(
        "type", "PostgreSQL", "Elasticsearch", "Redshift", "differing keys", title="Plain SQL's opinion"
    )
    equal = True
    for checked in CHECKED:
        here = in_postgres(checked, environment)
        sinks = (
            in_elasticsearch(checked, environment, deployment),
            in_redshift(checked, environment, deployment),
        )
        wrong = [name + ": " + _shown(keys) for name, sink in zip(("Elasticsearch", "Redshift"), sinks, strict=True)
                 if (keys := differing(here, sink))]  # fmt: skip
        table.add_row(
            checked.type, *(f"{len(rows):,}" for rows in (here, *sinks)), "; ".join(wrong) or "none"
        )
        equal = equal and not wrong
    console.print(table)
    return equal


def _shown(keys: list[tuple[str, ...]], most: int = 3) -> str:
    first = ", ".join("/".join(key) for key in keys[:most])
    return f"{len(keys):,} ({first}{', …' if len(keys) > most else ''})"


@click.command()
@click.option(
    "--deployment", default="payments", show_default=True, help="Prefix of the indices; schema of the tables."
)
def main(deployment: str) -> None:
    """Compare every example table with Elasticsearch and Redshift."""
    if not check(os.environ, Console(), deployment):
        sys.exit(1)


if __name__ == "__main__":
    main()
