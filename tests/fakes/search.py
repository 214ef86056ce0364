"""The real search sink in a place of a test's own."""

from collections.abc import Collection
from pathlib import Path

from elasticsearch import Elasticsearch

from pipeline import settings
from pipeline.domain.table import Column, Table
from pipeline.search import mapping, reader
from pipeline.search.client import connect
from pipeline.search.naming import write_alias
from pipeline.search.refresh import Refresher, refresh_indices
from pipeline.search.writer import Writer
from tests.fakes.sink import Stored

_TOML = """\
[deployment]
name = "{name}"
[sources.gateway0.tables."public.payments"]
merchant = {{ column = "merchant_id" }}
type = "payment"
[sources.gateway0.tables."public.refunds"]
merchant = {{ column = "merchant_id" }}
type = "refund"
[consumers.search]
handler = "tasks.search:index"
[search]
replicas = 0
"""
_ELSEWHERE = {
    "CONTROL_DATABASE_URL": "postgresql://nobody@127.0.0.1/none",
    "GATEWAY0_DATABASE_URL": "postgresql://nobody@127.0.0.1/none",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "REDIS_URL": "redis://127.0.0.1:9/0",
    "REDSHIFT_URL": "redshift://nobody@localhost:9/none",
    "S3_BUCKET": "none",
}
COLUMNS = (
    Column("id", "bigint", nullable=False),
    Column("merchant_id", "text"),
    Column("amount", "numeric(18,2)"),
    Column("quantity", "integer"),
    Column("ratio", "double precision"),
    Column("paid", "boolean"),
    Column("note", "character varying(100)"),
    Column("created_at", "timestamp(6) with time zone"),
    Column("day", "date"),
    Column("extra", "jsonb"),
    Column("token", "uuid"),
)


def table(type_: str, columns: tuple[Column, ...] = COLUMNS) -> Table:
    """A captured table of this type."""
    return Table("gateway0", f"public.{type_}s", type_, "merchant_id", ("id",), columns)


TABLES = (table("payment"), table("refund"))


def environment_for(directory: Path, name: str, url: str, **environ: str) -> dict[str, str]:
    """A pipeline.toml in `directory`, and the variables of a deployment that has nothing but Elasticsearch."""
    (directory / "pipeline.toml").write_text(_TOML.format(name=name))
    return {**_ELSEWHERE, "ELASTICSEARCH_URL": url, **environ}


def settings_for(directory: Path, name: str, url: str, **environ: str) -> settings.Settings:
    """The settings of such a deployment."""
    return settings.load(environment_for(directory, name, url, **environ), directory)


class OpenGate:
    """Every refresh is granted at once: there are no other workers."""

    def enter(self, indices: Collection[str], interval: float) -> dict[str, float]:
        """Yours, now."""
        return dict.fromkeys(indices, 0.0)


class SearchPlace:
    """Indices of a test's own and a writer into them. ``write`` is the sink."""

    def __init__(self, url: str, deployment: str, directory: Path) -> None:
        self.settings = settings_for(directory, deployment, url)
        self.deployment = deployment
        self.client: Elasticsearch = connect(url)
        mapping.ensure_indices(self.client, self.settings, TABLES)
        refresher = Refresher(lambda names: refresh_indices(self.client, names), OpenGate(), 0.075)
        self.writer = Writer(self.client, deployment, refresher)
        self.write = self.writer.write

    def close(self) -> None:
        """End the writer's thread and connections."""
        self.writer.close()

    def index(self, type_: str = "payment") -> str:
        """The concrete index of a type."""
        return next(iter(self.client.indices.get_alias(name=write_alias(self.deployment, type_))))

    def block(self, blocked: bool, type_: str = "payment") -> None:
        """Refuse writes to a type, or accept them again."""
        self.client.indices.put_settings(
            index=self.index(type_), settings={"index.blocks.write": blocked or None}
        )

    def stored(self, merchant: str, type_: str = "payment") -> dict[str, Stored]:
        """What is stored for a merchant, by encoded key, tombstones too."""
        found = reader.scan(self.client, self.deployment, type_, merchant)
        return {one.key: Stored(one.version, one.deleted, one.row) for one in found}
