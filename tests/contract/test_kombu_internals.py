"""Everything of kombu and Celery that the lanes stand on and that no documentation promises.

A new version that differs fails here first, with the name of what changed. Then: read its new body beside the code in
``pipeline/lanes/transport.py`` and ``request.py`` that replaces or calls it, change that, and run the tests of the
lanes, ``tests/integration/test_stock_kombu.py`` among them, before ``pipeline/lanes/tested.py`` names the version.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery.app import trace
from celery.app.amqp import AMQP, Queues
from celery.worker import request as celery_request
from celery.worker import state, strategy
from kombu import Connection
from kombu import transport as kombu_transport
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.scheduling import round_robin_cycle

from pipeline.errors import ConfigurationError
from pipeline.lanes.tested import TESTED, require_tested

REPO = Path(__file__).parents[2]
DATA = "data"


class Relied(NamedTuple):
    """Where it is, its name, its parameters, and a digest of its body if ours replaces it or depends on what it does."""

    owner: Any
    name: str
    parameters: str
    body: str = ""


CHANNEL, QOS, TRANSPORT, POLLER = stock.Channel, stock.QoS, stock.Transport, stock.MultiChannelPoller
REQUEST = celery_request.Request
RELIED_ON = (
    Relied(CHANNEL, "__init__", "self, *args, **kwargs", "d3caa2b9"),
    Relied(CHANNEL, "basic_consume", "self, queue, *args, **kwargs", "c78aa481"),
    Relied(CHANNEL, "basic_cancel", "self, consumer_tag", "1a504c1f"),
    Relied(CHANNEL, "_basic_cancel", "self, consumer_tag", "0a552b6f"),
    Relied(CHANNEL, "close", "self", "6dd3b192"),
    Relied(CHANNEL, "_put", "self, queue, message, **kwargs", "23232467"),
    Relied(CHANNEL, "_new_queue", "self, queue, auto_delete=, **kwargs", "3abb1f84"),
    Relied(CHANNEL, "_queue_bind", "self, exchange, routing_key, pattern, queue", "2e277c48"),
    Relied(CHANNEL, "_size", "self, queue", "8084e5b7"),
    Relied(CHANNEL, "_brpop_start", "self, timeout=", "dc848945"),
    Relied(CHANNEL, "_brpop_read", "self, **options", "9cb2e8ba"),
    Relied(CHANNEL, "_flush_brpop_reauth", "self", "fc63d772"),
    Relied(CHANNEL, "_q_for_pri", "self, queue, pri", "c4543e3b"),
    Relied(CHANNEL, "conn_or_acquire", "self, client=", "a0655fe3"),
    Relied(CHANNEL, "active_queues", DATA),
    Relied(CHANNEL, "client", DATA),
    Relied(CHANNEL, "_in_poll", DATA),
    Relied(CHANNEL, "_brpop_sent_at", DATA),
    Relied(CHANNEL, "priority_steps", DATA),
    Relied(CHANNEL, "sep", DATA),
    Relied(CHANNEL, "global_keyprefix", DATA),
    Relied(round_robin_cycle, "consume", "self, n", "218bbafc"),
    Relied(round_robin_cycle, "rotate", "self, last_used", "ec4549d4"),
    Relied(QOS, "append", "self, message, delivery_tag", "157a1a95"),
    Relied(QOS, "ack", "self, delivery_tag", "2d8cfe63"),
    Relied(QOS, "reject", "self, delivery_tag, requeue=", "c4683553"),
    Relied(QOS, "restore_unacked", "self, client=", "cd2fae2a"),
    Relied(QOS, "restore_visible", "self, start=, num=, interval=", "5252f843"),
    Relied(QOS, "_flush", "self", "393bc1fd"),
    Relied(QOS, "_delivered", DATA),
    Relied(QOS, "can_consume", "self", "dc264ded"),
    Relied(virtual.QoS, "append", "self, message, delivery_tag", "d180ce71"),
    Relied(virtual.QoS, "ack", "self, delivery_tag", "f7ca6cfd"),
    Relied(TRANSPORT, "Channel", DATA),
    Relied(TRANSPORT, "_deliver", "self, message, queue", "fb0e8de8"),
    Relied(POLLER, "on_poll_start", "self", "03949847"),
    Relied(POLLER, "_register_BRPOP", "self, channel", "58300d23"),
    Relied(POLLER, "_update_brpop_polling", "self", "13345455"),
    Relied(kombu_transport, "TRANSPORT_ALIASES", DATA),
    Relied(kombu_transport, "_transport_cache", DATA),
    Relied(kombu_transport, "get_transport_cls", "transport=", "c0885ef4"),
    Relied(
        REQUEST,
        "__init__",
        "self, message, on_ack=, hostname=, eventer=, app=, connection_errors=, request_dict=, task=, on_reject=,"
        " body=, headers=, decoded=, utc=, maybe_make_aware=, maybe_iso8601=, **opts",
        "6ac155ed",
    ),
    Relied(REQUEST, "execute_using_pool", "self, pool, **kwargs", "ddba38d6"),
    Relied(REQUEST, "on_accepted", "self, pid, time_accepted", "b56113d2"),
    Relied(REQUEST, "on_success", "self, failed__retval__runtime, **kwargs", "893755cc"),
    Relied(REQUEST, "on_failure", "self, exc_info, send_failed_event=, return_ok=", "d2ea2b66"),
    Relied(REQUEST, "on_timeout", "self, soft, timeout", "f39d9a40"),
    Relied(REQUEST, "acknowledge", "self", "bf4e1676"),
    Relied(REQUEST, "send_event", "self, type, **fields", "e5633159"),
    Relied(
        strategy,
        "default",
        "task, app, consumer, info=, error=, task_reserved=, to_system_tz=, bytes=, proto1_to_proto2=",
        "b7628e76",
    ),
    Relied(
        celery_request,
        "create_request_cls",
        "base, task, pool, hostname, eventer, ref=, revoked_tasks=, task_ready=, trace=, app=",
        "7ee192e4",
    ),
    Relied(Queues, "__missing__", "self, name", "b4dfc576"),
    Relied(AMQP, "queues_cls", DATA),
    Relied(
        trace,
        "fast_trace_task",
        "task, uuid, request, body, content_type, content_encoding, loads=, _loc=, hostname=, **_",
        "3dd58010",
    ),
    Relied(
        trace,
        "trace_task_ret",
        "name, uuid, request, body, content_type, content_encoding, loads=, app=, **extra_request",
        "908118f4",
    ),
    Relied(
        state,
        "task_reserved",
        "request, add_request=, add_reserved_request=, discard_scheduled_request=",
        "0c64530d",
    ),
)
# Set on the instance: there is no class to ask.
OF_A_CHANNEL = ("connection", "connection_errors", "_queue_cycle", "_tag_to_queue", "_active_queues", "qos")
OF_A_REQUEST = (
    "_app",
    "_body",
    "_request_dict",
    "_apply_result",
    "name",
    "id",
    "task",
    "argsrepr",
    "message",
)


def title(one: Relied) -> str:
    module = "" if inspect.ismodule(one.owner) else f"{one.owner.__module__}."
    return f"{module}{one.owner.__name__}.{one.name}"


def parameters(function: Any) -> str:
    """The names of a function's parameters; ``=`` marks those with defaults."""
    marks: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return ", ".join(
        f"{marks.get(one.kind, '')}{name}{'=' if one.default is not one.empty else ''}"
        for name, one in inspect.signature(function).parameters.items()
    )


def digest(function: Any) -> str:
    """Of what a function does: neither comments, docstring nor layout count."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return hashlib.sha256("\n".join(map(ast.unparse, body)).encode()).hexdigest()[:8]


@pytest.mark.parametrize("one", RELIED_ON, ids=title)
def test_it_is_what_it_was(one: Relied) -> None:
    found = getattr(one.owner, one.name, None)
    assert hasattr(one.owner, one.name), f"{title(one)} is gone"
    if one.parameters == DATA:
        return
    assert parameters(found) == one.parameters, f"{title(one)} takes other parameters"
    assert digest(found) == one.body, f"{title(one)} does something else"


@pytest.mark.parametrize("name", OF_A_CHANNEL)
def test_a_channel_has_what_it_had(name: str, redis_url: str) -> None:
    with Connection(redis_url, transport=stock.Transport) as connection, connection.channel() as channel:
        assert hasattr(channel, name), f"a channel has no {name} any more"


def test_a_request_has_what_it_had() -> None:
    source = ast.parse(textwrap.dedent(inspect.getsource(REQUEST)))
    given = {node.attr for node in ast.walk(source) if isinstance(node, ast.Attribute)}
    assert set(OF_A_REQUEST) - given - set(dir(REQUEST)) == set()


def of_their_own(path: str) -> Iterator[tuple[str, str]]:
    """Each class of ours that extends one of theirs, and a name it takes from there."""
    for node in ast.parse((REPO / path).read_text()).body:
        if not isinstance(node, ast.ClassDef) or not node.bases:
            continue
        ours = {one.name for one in ast.walk(node) if isinstance(one, ast.FunctionDef)}
        ours |= {ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)}
        assigned = {
            ast.unparse(target).removeprefix("self.")
            for function in node.body
            if isinstance(function, ast.FunctionDef) and function.name == "__init__"
            for one in ast.walk(function)
            if isinstance(one, ast.Assign | ast.AnnAssign)
            for target in (one.targets if isinstance(one, ast.Assign) else [one.target])
        }
        for one in ast.walk(node):
            if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "self":
                if one.attr not in ours | assigned:
                    yield node.name, one.attr
            elif isinstance(one, ast.Attribute) and ast.unparse(one.value) == "super()":
                yield node.name, one.attr


def test_nothing_is_relied_on_that_is_not_listed() -> None:
    # Mutant: `self._lookup(…)` in LaneChannel, and it is not in the list above.
    listed = {one.name for one in RELIED_ON} | set(OF_A_CHANNEL) | set(OF_A_REQUEST)
    used = {*of_their_own("pipeline/lanes/transport.py"), *of_their_own("pipeline/lanes/request.py")}
    used |= {*of_their_own("pipeline/lanes/task_request.py")}
    assert {(owner, name) for owner, name in used if name not in listed | {"channel"}} == set()


@pytest.mark.parametrize("name", sorted(TESTED))
def test_another_minor_version_is_refused(name: str) -> None:
    newer = {**{known: f"{minor}.9" for known, minor in TESTED.items()}, name: "5.99.0"}
    with pytest.raises(
        ConfigurationError, match=rf"{name} 5\.99\.0 is installed, and lanes are tested with {name} 5\.7"
    ):
        require_tested(newer.__getitem__)


def test_what_is_installed_and_newer_patches_are_accepted() -> None:
    require_tested()
    require_tested({name: f"{minor}.99" for name, minor in TESTED.items()}.__getitem__)
