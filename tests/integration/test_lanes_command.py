"""`pipeline lanes` beside real services, without a bridge: what it tells, counts, refuses and leaves behind."""

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from rich.console import Console

from pipeline.cli import status
from pipeline.cli.status_screen import screen
from pipeline.cli.status_state import State
from pipeline.control import detached, placements, requests
from pipeline.control.fences import Hold
from pipeline.control.lane_views import Counts
from pipeline.domain.routing import partition_of
from pipeline.lanes.store import RedisLaneStore, namespace_of
from pipeline.ports import Detachment
from tests.integration.bridged import PARTITIONS, Bridged
from tests.integration.operating import Operator

pytestmark = pytest.mark.integration
ATTACK = "\x1b]0;owned\x07\x1b[31mred\x1b[2J[bold]\r\nnext\u202egnol"


@pytest.fixture
def operator(bridged: Bridged) -> Operator:
    return Operator(bridged)


def test_without_a_bridge_a_request_stays_until_it_is_withdrawn(operator: Operator) -> None:
    operator.publish("6")
    said = operator.process("pause", "audit", "6", "--reason", "their outage", expected=3)
    assert "does not run: request 1, 2 stays" in said.err
    assert "pipeline lanes withdraw 1" in said.err
    asked = operator.told("list", "audit")["requests"]
    assert [(one["id"], one["lane"], one["verb"], one["reason"]) for one in asked] == [
        (1, "6", "pause", "their outage"),
        (2, "s.6", "pause", "their outage"),
    ]
    for id_ in ("1", "2"):
        operator.lanes("withdraw", id_)
    assert operator.told("list", "audit")["requests"] == []
    assert "it has ended already" in operator.lanes("withdraw", "1", expected=1).err
    assert "there is none" in operator.lanes("withdraw", "77", expected=1).err
    assert {became for *_, became in operator.requests()} == {f"withdrawn by {asked[0]['actor']}"}


def test_who_is_unknown_is_refused_with_names_that_are_near(operator: Operator) -> None:
    operator.publish("merchant_17", "other")
    assert "did you mean audit?" in operator.process("list", "audti", expected=2).err
    assert "there are: audit, tasks" in operator.lanes("list", "zzz", expected=2).err
    assert "is no merchant id" in operator.lanes("show", "audit", "no merchant", expected=2).err
    operator.detach("merchant_17", 0, "parked", "poison")
    said = operator.process("pause", "audit", "merchant_71", "--reason", "x", expected=1)
    assert 'audit never had an event of merchant "merchant_71"' in said.err
    assert "did you mean merchant_17?" in said.err
    # Not in Redis, which was emptied perhaps, but Kafka knows of it.
    operator.lanes("pause", "audit", "other", "--reason", "x", "--no-wait")
    assert [lane for lane, *_ in operator.requests()] == ["other", "s.other"]


def test_a_dry_run_counts_the_merchants_own_events_and_changes_nothing(operator: Operator) -> None:
    # Mutants: all records of the partition counted; a dry run that asks.
    offsets = operator.publish(*["6", "15", "6"] * 10)["6"]
    operator.detach("6", offsets[4], "parked", "poison")
    said = operator.lanes("skip", "audit", "6", "--count", "3", "--reason", "x", "--dry-run").out
    assert [word for word in said.split() if word.isdecimal()][1] == "3"
    assert f" {offsets[4]} (" in said
    assert f" {offsets[6]} (" in said
    said = operator.lanes("rewind", "audit", "6", "--to", str(offsets[1]), "--reason", "x", "--dry-run").out
    assert [word for word in said.split() if word.isdecimal()][1] == "3"
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    said = operator.lanes("rewind", "audit", "6", "--to", hour_ago, "--reason", "x", "--dry-run").out
    assert [word for word in said.split() if word.isdecimal()][1] == "4"
    said = operator.lanes("release", "audit", "--all-parked", "--reason", "x", "--dry-run").out
    assert [word for word in said.split() if word.isdecimal()][1] == "16"
    assert operator.requests() == []


def test_more_parked_lanes_than_a_listing_holds_are_all_released(operator: Operator) -> None:
    # Mutant: those that `list` would show: the rest stays parked, and nobody is told.
    topic, database = operator.bridged.settings.datastream.topic, operator.bridged.database
    held = detached.take_over(database, "audit", [(topic, 0)])[topic, 0]
    parked = [Detachment(f"m{number}", 0, "parked", "poison") for number in range(1001)]
    detached.detach(database, Hold("audit", topic, 0, held.tenure.fence), parked)
    operator.lanes("release", "audit", "--all-parked", "--no-wait", "--reason", "x")
    assert len(operator.requests()) == len(parked)


def test_skip_and_rewind_are_confirmed_or_told_yes(operator: Operator) -> None:
    offsets = operator.publish("6", "6", "6")["6"]
    operator.detach("6", offsets[1], "paused", "a person")
    for words in (["skip"], ["rewind", "--to", str(offsets[0])]):
        said = operator.lanes(words[0], "audit", "6", *words[1:], "--reason", "x", expected=2)
        assert "give --yes" in said.err
        assert "Events of audit that" in said.out
    assert operator.requests() == []
    operator.lanes("skip", "audit", "6", "--reason", "x", "--yes", "--no-wait")
    operator.lanes("rewind", "audit", "6", "--to", str(offsets[0]), "--reason", "x", "--yes", "--no-wait")
    assert operator.requests() == [
        ("6", "skip", offsets[1] + 1, False, None),
        ("6", "rewind", offsets[0], False, None),
    ]
    with operator.bridged.database.transaction() as connection:
        (details, expected) = connection.execute(
            "SELECT details, expected_first FROM lane_requests WHERE verb = 'skip'"
        ).fetchall()[0]
    assert expected == offsets[1]
    assert (details["events"], details["from"], details["to"]) == (1, offsets[1], offsets[1])


def test_what_cannot_be_is_refused_with_what_to_do(operator: Operator, kafka_admin: KafkaAdminClient) -> None:
    offsets = operator.publish(*["6"] * 10)["6"]
    refused = [
        (("skip", "audit", "6", "--yes"), "is not stopped: it runs"),
        (("release", "audit", "6"), "is not parked"),
        (("resume", "audit", "6"), "is not paused"),
        (("resume", "audit", "--all"), "is not paused as a whole"),
        (("rewind", "audit", "6", "--to", str(offsets[-1] + 1), "--yes"), "nothing would be replayed"),
    ]
    for words, said in refused:
        assert said in operator.lanes(*words, "--reason", "x", expected=1).err
    operator.detach("6", offsets[5], "paused", "a person")
    for words, said in [
        (("pause", "audit", "6", "--dry-run"), ""),  # the lane of snapshots can still be paused
        (("skip", "audit", "6", "--to", str(offsets[5]), "--dry-run"), "--to must be above"),
        (("skip", "audit", "6", "--to", str(offsets[-1] + 2), "--dry-run"), "--to must be above"),
        (("release", "audit", "6", "--dry-run"), "pipeline lanes resume audit 6"),
        (("skip", "audit", "6", "--snapshot", "--yes"), "is not stopped"),
    ]:
        assert said in operator.lanes(*words, "--reason", "x", expected=1 if said else 0).err
    place = TopicPartition(operator.bridged.settings.datastream.topic, partition_of("6", PARTITIONS))
    kafka_admin.delete_records({place: offsets[3]})
    for to in (str(offsets[2]), "2026-01-01T00:00:00Z"):
        said = operator.lanes("rewind", "audit", "6", "--to", to, "--reason", "x", "--yes", expected=1).err
        assert f"passed retention: its first record is offset {offsets[3]}" in said
        assert f"--to {offsets[3]} replays all that is left" in said
    operator.lanes("rewind", "audit", "6", "--to", str(offsets[3]), "--reason", "x", "--dry-run")
    kafka_admin.delete_records({place: offsets[7]})
    # Mutant: the first event that is left is taken for the next one.
    said = operator.lanes("skip", "audit", "6", "--reason", "x", "--yes", expected=1).err
    assert f"--to {offsets[7]} leaves out what passed retention" in said
    operator.lanes("skip", "audit", "6", "--to", str(offsets[7]), "--reason", "x", "--dry-run")
    assert operator.requests() == []


def test_wrong_use_ends_with_two(operator: Operator) -> None:
    for words in (
        ("pause", "audit", "6"),
        ("pause", "audit", "--reason", "x"),
        ("pause", "audit", "6", "--all", "--reason", "x"),
        ("release", "audit", "--reason", "x"),
        ("skip", "audit", "6", "--count", "1", "--to", "5", "--reason", "x"),
        ("skip", "audit", "6", "15", "--to", "5", "--reason", "x"),
        ("rewind", "audit", "6", "--reason", "x"),
        ("rewind", "audit", "6", "--to", "2026-01-01T00:00", "--reason", "x"),
        ("rewind", "audit", "6", "--to", "yesterday", "--reason", "x"),
    ):
        operator.lanes(*words, expected=2)
    assert operator.requests() == []


def test_words_of_others_give_the_terminal_no_orders(operator: Operator) -> None:
    # Mutant: printed as they came.
    operator.publish("6")
    operator.detach("6", 0, "parked", ATTACK)
    operator.lanes("pause", "audit", "6", "--reason", ATTACK, "--no-wait")
    requests.pause_consumer(operator.bridged.database, "audit", actor=ATTACK, reason=ATTACK)
    for words in (("list", "audit"), ("show", "audit", "6"), ("show", "audit", "6", "--payload")):
        said = operator.lanes(*words)
        shown = said.out + said.err
        assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
        assert "red[bold]" in shown.replace("\n", "")
        assert "owned" not in shown


def test_the_event_at_which_a_lane_stands_is_named_without_its_values(operator: Operator) -> None:
    # Mutant: the payload shown unasked.
    offsets = operator.publish("15", "6", "6", "6")["6"]
    operator.detach("6", offsets[1], "parked", "poison")
    said = operator.lanes("show", "audit", "6").out
    assert f"offset {offsets[1]}: a change of a row, type payment, op u, key 3, version" in " ".join(
        said.split()
    )
    event = operator.shown("6")["6"]["event"]
    assert (event["source"], event["offset"], event["key"], event["payload"]) == (
        "kafka",
        offsets[1],
        "3",
        None,
    )
    assert '"after"' not in said
    assert '"after"' in operator.lanes("show", "audit", "6", "--payload").out
    assert operator.shown("6")["6"]["kept_until"] is not None


def test_lanes_of_tasks_are_shown_and_not_held(operator: Operator) -> None:
    store = RedisLaneStore(
        operator.bridged.redis, namespace_of(operator.bridged.settings.deployment, "tasks")
    )
    for number in range(3):
        store.send("6", f"id{number}", b'{"headers": {"id": "id0", "task": "shop.mail"}, "body": "secret"}')
    (lane,) = operator.told("list", "tasks")["lanes"]
    assert (lane["lane"], lane["state"], lane["waiting"]) == ("6", "long", 3)
    (lane,) = operator.told("top", "tasks", "--interval", "0.1")["lanes"]
    assert (lane["lane"], lane["waiting"], lane["arrivals"]) == ("6", 3, None)
    shown = operator.lanes("show", "tasks", "6").out
    assert "a Celery task, type shop.mail, id id0" in shown
    assert "secret" not in shown
    for verb in ("pause", "resume", "release", "skip", "resync"):
        said = operator.lanes(verb, "tasks", "6", "--reason", "x", expected=1).err
        assert "have no bridge" in said
    assert (
        "have no bridge"
        in operator.lanes("rewind", "tasks", "6", "--to", "1", "--reason", "x", expected=1).err
    )
    assert operator.requests() == []


def test_status_tells_of_lanes_that_are_held_and_of_moves(operator: Operator) -> None:
    # Mutants: detached lanes counted without regard to their state; words of others obeyed.
    operator.publish("6", "15", "17")
    for merchant, held in (("6", "parked"), ("15", "paused"), ("17", "running")):
        operator.detach(merchant, 0, held, ATTACK)  # type: ignore[arg-type]  # literals
    database = operator.bridged.database
    requests.pause_consumer(database, "audit", actor="sam", reason="deploying")
    placements.begin(database, "6", "gateway0", "gateway1", ATTACK, held=False)
    (consumer,) = status._consumers_of(operator.bridged.settings, database, "audit")
    assert consumer.detached == Counts(running=1, paused=1, parked=1)
    state = State([], [consumer], [], [], [], [], [], [], placements.under_way(database))
    assert not state.healthy
    console = Console(width=160, file=StringIO(), force_terminal=True, no_color=True)
    for part in screen(state):
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert "audit is paused as a whole by sam" in shown
    assert "lane 6 of audit is parked" in shown
    assert "gateway0" in shown
    assert not {"\x07", "\r", "\u202e"} & set(shown)
    assert "\x1b[2J" not in shown
