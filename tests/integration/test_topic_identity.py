"""Topics that were made anew under their old names: offsets of the former ones mean nothing in them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from devstack.process import wait_until
from pipeline.bridge.consumer import GroupMember
from pipeline.bridge.identity import KnownTopics
from pipeline.bridge.progress import view_of
from pipeline.bridge.start import group_of
from pipeline.bridge.topics import Topics
from pipeline.control import detached, identities, rejected
from pipeline.control.identities import Identity
from pipeline.errors import PositionLostError
from tests.integration.bridged import MERCHANTS, PARTITIONS, Bridged, require_order
from tests.integration.operating import Operator

pytestmark = pytest.mark.integration
OTHER = "is not the one that the offsets of audit belong to"
# What is noted, what is found later, and what is known then.
NOTES = [
    (Identity("c", None), Identity("c", "1"), Identity("c", "1")),  # the brokers were upgraded
    (Identity("c", None), Identity("d", "1"), Identity("c", None)),
    (Identity(None, None), Identity("d", None), Identity(None, None)),
    (Identity("c", "1"), Identity("c", None), Identity("c", "1")),
    (Identity("c", "1"), Identity("c", "2"), Identity("c", "1")),
]


@pytest.fixture
def remake(
    bridged: Bridged, kafka_admin: KafkaAdminClient, kafka_bootstrap: str
) -> Iterator[Callable[[], None]]:
    """Deletes the topic of changes and makes it anew; records go to the new one from then on."""
    name, made = bridged.settings.datastream.topic, list[KafkaProducer]()

    def again() -> None:
        kafka_admin.delete_topics([name])
        assert wait_until(lambda: name not in kafka_admin.list_topics(), 30)
        kafka_admin.create_topics(
            {name: {"num_partitions": PARTITIONS, "replication_factor": 1}}, wait_for_metadata=True
        )
        made.append(KafkaProducer(bootstrap_servers=kafka_bootstrap, acks="all"))
        bridged.producer = made[-1]

    yield again
    for producer in made:
        producer.close()


def commit_the_beginnings(bridged: Bridged) -> None:
    with closing(view_of(bridged.settings, "audit")) as view:
        view.commit(view.beginnings())


def refusal(bridged: Bridged) -> str:
    with bridged.bridge() as refused:
        assert refused.wait(40) == 1
        assert refused.stderr is not None
        said = refused.stderr.read()
    assert "Traceback" not in said
    return said


def test_a_topic_made_anew_is_refused_however_long_it_is_until_its_consumer_starts_over(
    bridged: Bridged, remake: Callable[[], None]
) -> None:
    # Mutants: require() that compares nothing: the old lanes take new events for old ones; clear() that does nothing:
    # they do so after start-over, too; check without _its_topics.
    operator = Operator(bridged)
    bridged.produce(2)
    with bridged.bridge():
        require_order(bridged.accept_until_committed(), 2)
    operator.detach("1", 0, "parked", "poison")
    operator.lanes("release", "audit", "1", "--no-wait", "--reason", "mended")
    assert OTHER not in operator.command("check", expected=1).out
    remake()
    bridged.produce(5)
    commit_the_beginnings(bridged)
    assert OTHER in operator.command("check", expected=1).out
    said = refusal(bridged)
    assert OTHER in said
    assert "pipeline lanes start-over audit" in said
    said = operator.lanes("start-over", "audit", "--reason", "rebuilt", "--dry-run").out
    assert f"{bridged.settings.datastream.topic}: was " in said
    assert f"{bridged.settings.snapshots.topic}: " in said
    assert "detached lanes that are forgotten: 1\n" in said
    assert f"perhaps again: {5 * len(MERCHANTS)}\n" in said
    assert OTHER in refusal(bridged)
    operator.lanes("start-over", "audit", "--reason", "rebuilt", "--yes")
    assert detached.rows(bridged.database, "audit") == []
    assert {refused for *_, refused in operator.requests()} == {"the consumer starts over"}
    with bridged.bridge():
        require_order(bridged.accept_until_committed(), 5)
    with bridged.database.transaction() as connection:
        [(reason, details)] = connection.execute(
            "SELECT reason, details FROM actions WHERE verb = 'lanes.start-over' AND subject = 'audit'"
        ).fetchall()
    assert (reason, details["detached"]) == ("rebuilt", 1)


def test_a_topic_made_anew_under_a_running_bridge_ends_it(
    bridged: Bridged, remake: Callable[[], None]
) -> None:
    # Mutant: poll() that asks for no identity when its positions are gone: the bridge says something else is wrong.
    bridged.produce(1)
    with bridged.bridge() as process:
        bridged.accept_until_committed()
        remake()
        assert process.wait(40) == 1
        assert process.stderr is not None
        assert OTHER in process.stderr.read()


def test_a_member_reads_nothing_of_a_topic_that_it_does_not_know(bridged: Bridged) -> None:
    # Mutant: poll() that asks for no identity while its positions are good.
    topics = Topics.of(bridged.settings, "audit")
    with closing(view_of(bridged.settings, "audit")) as view:
        view.commit(view.beginnings())
        found = view.identities()
    bridged.produce(1)
    former = {**found, topics.names[0]: replace(found[topics.names[0]], id="former")}
    member = GroupMember(
        bridged.settings.environment.kafka_bootstrap_servers,
        topics,
        group_of(bridged.settings, "audit"),
        known=KnownTopics("audit", former),
    )
    with closing(member), pytest.raises(PositionLostError, match=OTHER):
        while not member.poll(1.0).records:
            pass


def test_nobody_starts_over_while_a_bridge_runs(bridged: Bridged) -> None:
    # Mutant: lanes emptied before the group is asked.
    bridged.produce(1)
    with bridged.bridge():
        assert wait_until(lambda: sum(bridged.store.lengths(MERCHANTS).values()) == len(MERCHANTS), 40)
        epoch = bridged.store.epoch()
        said = Operator(bridged).lanes("start-over", "audit", "--reason", "x", "--yes", expected=1).err
        assert "bridges of audit run" in said
        assert bridged.store.epoch() == epoch


def test_what_was_set_aside_in_a_former_topic_is_kept_and_hides_nothing(bridged: Bridged) -> None:
    # Mutant: start_over() that leaves the rows as they are: the second event finds its place taken, and is lost.
    bridged.send(0, b"no merchant!", b"former")
    bridged.producer.flush(10)
    with bridged.bridge():
        bridged.accept_until_committed()
    Operator(bridged).lanes("start-over", "audit", "--reason", "x", "--yes")
    with bridged.bridge():
        bridged.accept_until_committed()
    topic = bridged.settings.datastream.topic
    present, former = [event.topic for event in rejected.listed(bridged.database, "audit")]
    assert present == topic
    assert former.startswith(f"{topic} until 2")


def test_the_first_bridge_says_which_topics_they_are_and_those_beside_it_agree(bridged: Bridged) -> None:
    # Mutants: the newest identity wins; none is noted at a start.
    bridged.produce(1)
    with bridged.bridge(), bridged.bridge():
        bridged.accept_until_committed()
    with closing(view_of(bridged.settings, "audit")) as view:
        found = view.identities()
    known = identities.known(bridged.database, "audit")
    assert known == found
    assert len({one.id for one in known.values()}) == 2
    other = {topic: Identity("elsewhere", "other") for topic in known}
    assert identities.note(bridged.database, "audit", other) == found


def test_an_id_is_noted_later_only_within_its_cluster(bridged: Bridged) -> None:
    # Mutant: an id from another cluster fills in what is not known.
    for number, (noted, found, then) in enumerate(NOTES):
        identities.note(bridged.database, "audit", {f"t{number}": noted})
        assert identities.note(bridged.database, "audit", {f"t{number}": found})[f"t{number}"] == then
