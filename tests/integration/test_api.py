import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from devstack.process import wait_until
from pipeline.api.app import create_app
from pipeline.search import reader
from tests.fakes.search import SearchPlace, settings_for
from tests.fakes.turns import event, lane, row, turn

pytestmark = pytest.mark.integration


@pytest.fixture
def place(elasticsearch_url: str, index_prefix: str, tmp_path: Path) -> Iterator[SearchPlace]:
    made = SearchPlace(elasticsearch_url, index_prefix, tmp_path)
    yield made
    made.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert wait_until(lambda: server.started, 10)
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def web(place: SearchPlace) -> Iterator[httpx.Client]:
    with serving(create_app(place.settings)) as client:
        yield client


@pytest.fixture
def web_without_search(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(create_app(settings_for(tmp_path, "payments", "http://127.0.0.1:9"))) as client:
        yield client


def assert_error(answer: Any, status: int, code: str) -> None:
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert list(error) == ["code", "message"]
    assert error["code"] == code
    assert error["message"]


def test_a_merchant_is_told_how_many_rows_it_has(place: SearchPlace, web: httpx.Client) -> None:
    place.write(
        turn(
            lane(event(1, row(1)), event(2, row(2)), event(3, row(3), op="d")),
            lane(event(4, row(4), merchant="_gateway0")),
        )
    )
    reader.refresh(place.client, place.deployment, ["payment"])
    answers = [web.get(f"/{merchant}/payment/_count") for merchant in ("6", "_gateway0", "8")]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"count": 2}),
        (200, {"count": 1}),
        (200, {"count": 0}),
    ]


@pytest.mark.parametrize("merchant", ["*", "6,7", "6%2C7", "6 OR 7", "%00", "a" * 65, "-6", "..%2f6"])
def test_what_is_no_merchant_is_refused(web: httpx.Client, merchant: str) -> None:
    answer = web.get(f"/{merchant}/payment/_count")
    if answer.status_code != 404:  # a decoded slash makes another path of it
        assert_error(answer, 400, "bad_merchant")


@pytest.mark.parametrize("type_", ["payments", "*", "payment,refund", "_all", "payment-read", "Payment"])
def test_an_unknown_type_is_not_found(web: httpx.Client, type_: str) -> None:
    answer = web.get(f"/6/{type_}/_count")
    assert_error(answer, 404, "unknown_type")
    assert "payment, refund" in answer.json()["error"]["message"]


def test_the_frameworks_own_errors_have_the_same_shape(web: httpx.Client) -> None:
    assert_error(web.get("/6/payment"), 404, "not_found")
    assert_error(web.get("/6/payment/_count/"), 404, "not_found")
    refused = web.post("/6/payment/_count")
    assert_error(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"


def test_health_asks_nobody_and_readiness_asks_for_every_index(place: SearchPlace, web: httpx.Client) -> None:
    assert web.get("/healthz").json() == {"status": "ok"}
    assert web.get("/readyz").json() == {"status": "ready"}
    place.client.indices.delete(index=place.index("refund"))
    assert_error(web.get("/readyz"), 503, "unavailable")
    assert_error(web.get("/6/refund/_count"), 503, "unavailable")


def test_a_count_that_would_be_partial_is_an_error(place: SearchPlace, web: httpx.Client) -> None:
    place.client.indices.close(index=place.index())
    assert_error(web.get("/6/payment/_count"), 503, "unavailable")


def test_without_elasticsearch_the_process_lives_and_says_so(web_without_search: httpx.Client) -> None:
    assert web_without_search.get("/healthz").status_code == 200
    assert_error(web_without_search.get("/readyz"), 503, "unavailable")
    answer = web_without_search.get("/6/payment/_count")
    assert_error(answer, 503, "unavailable")
    assert "127.0.0.1" not in answer.text
