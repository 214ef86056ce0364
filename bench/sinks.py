"""What the sinks show, asked from outside: offsets in Kafka, documents in Elasticsearch, rows in the warehouse."""

from __future__ import annotations

from contextlib import closing
from types import TracebackType

from bench.deployment import TYPE
from bench.load import Expected
from example.fresh import warehouse
from pipeline.bridge.group_view import GroupView
from pipeline.bridge.start import group_of
from pipeline.bridge.topics import Topics
from pipeline.control import detached, parts
from pipeline.control.database import ControlDatabase
from pipeline.control.fences import Place
from pipeline.search.client import connect
from pipeline.search.naming import read_alias
from pipeline.settings import Settings


class Sinks:
    """Both sinks of a deployment; a context manager. Each question costs the services about a millisecond."""

    def __init__(self, settings: Settings) -> None:
        environment = settings.environment
        self._settings = settings
        self._search = connect(environment.elasticsearch_url.get_secret_value())
        self._alias = read_alias(settings.deployment, TYPE)
        self._database = ControlDatabase(environment.control_database_url.get_secret_value())
        self._groups = {
            name: GroupView(
                environment.kafka_bootstrap_servers, Topics.of(settings, name), group_of(settings, name)
            )
            for name in ("search", "warehouse")
        }

    def __enter__(self) -> Sinks:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        for group in self._groups.values():
            group.close()
        self._search.close()
        self._database.close()

    def published(self) -> int:
        """Records in the topics that search reads: the sum of their end offsets."""
        return sum(self._groups["search"].ends().values())

    def accepted(self, consumer: str) -> int:
        """Records that a consumer's sink has accepted, or its detached lanes have left: the sum of its committed offsets."""
        return sum(self._groups[consumer].committed().values())

    def has_accepted(self, consumer: str, records: int) -> bool:
        """The consumer's sink has accepted so many records, and its detached lanes have left none of them."""
        committed = self._groups[consumer].committed()
        topics = Topics.of(self._settings, consumer)
        ends: dict[Place, int] = {topics.place(number): at for number, at in committed.items()}
        return sum(committed.values()) >= records and not detached.unaccepted(self._database, consumer, ends)

    def shows(self, seq: int) -> bool:
        """A search finds the row that the change of this number has written."""
        return bool(self._search.count(index=self._alias, query={"term": {"seq": seq}})["count"])

    def searchable(self) -> Expected:
        """Living rows that a search finds, and the sum of their `seq`."""
        answer = self._search.search(
            index=self._alias, size=0, track_total_hits=True, query={"term": {"cdc.deleted": False}},
            aggs={"sum": {"sum": {"field": "seq"}}},
        )  # fmt: skip
        return Expected(answer["hits"]["total"]["value"], int(answer["aggregations"]["sum"]["value"]))

    def loaded(self) -> bool:
        """Nothing that is staged waits for its load. RuntimeError when a load has failed."""
        states = parts.load_states(self._database)
        failed = [state.error for state in states if state.status == "failed"]
        if failed:
            raise RuntimeError(f"a load has failed: {failed[0]}")
        return not states

    def in_warehouse(self) -> Expected:
        """Living rows in the warehouse, and the sum of their `seq`."""
        with closing(warehouse(self._settings)) as session, session.cursor() as cursor:
            view = f'"{self._settings.warehouse_schema}"."{TYPE}_live"'
            cursor.execute(f"SELECT count(*), coalesce(sum(seq), 0) FROM {view}")  # noqa: S608  our own names
            rows, total = cursor.fetchall()[0]
        return Expected(int(rows), int(total))
