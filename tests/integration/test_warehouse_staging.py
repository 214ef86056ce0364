"""A turn is accepted when its parts are durable, and not before."""

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from pipeline.consumer import SinkUnavailableError
from pipeline.control import parts
from pipeline.control.database import ControlDatabase
from pipeline.control.parts import Due, Part
from pipeline.storage import Bucket
from pipeline.warehouse.stager import Stager
from tests.integration.warehouse_deployment import Deployment, event, turn

pytestmark = pytest.mark.integration


@pytest.fixture
def deployment(
    variables: Mapping[str, str], tmp_path: Path, control_url: str, warehouse_schema: str, s3_client: object
) -> Iterator[Deployment]:
    """Tables made, nothing staged."""
    made = Deployment(variables, tmp_path, control_url, warehouse_schema)
    yield made
    made.close()


def test_s3_away_accepts_nothing(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: the lanes are done before the upload."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    stager = Stager(deployment.settings.deployment, deployment.database, Bucket(deployment.bucket.name))
    staged = turn([event("payment", "6", 1, 10), event("refund", "7", 1, 11)])
    with pytest.raises(SinkUnavailableError, match="S3"):
        stager(staged)
    assert [lane.finished for lane in staged] == [None, None]
    assert parts.load_states(deployment.database) == []


def test_the_control_database_away_accepts_nothing(deployment: Deployment) -> None:
    stager = Stager(
        deployment.settings.deployment, ControlDatabase("postgresql://x@127.0.0.1:1/x"), deployment.bucket
    )
    staged = turn([event("payment", "6", 1, 10)])
    with pytest.raises(SinkUnavailableError, match="control database"):
        stager(staged)
    assert [lane.finished for lane in staged] == [None]


def test_one_bad_event_is_set_aside_and_the_rest_is_staged(deployment: Deployment) -> None:
    strange = msgspec.structs.replace(event("payment", "6", 4, 13), type="unheard_of")
    alien = event("payment", "7", 5, 14)
    alien = msgspec.structs.replace(alien, after=msgspec.Raw(b'{"id": 5}'))
    staged = deployment.stage(
        event("payment", "6", 1, 10),
        event("payment", "6", 2, 11, Amount="1.234"),
        event("payment", "6", 3, 12, Amount=1.5),
        strange,
        alien,
    )
    assert [lane.finished for lane in staged] == [4, 1]
    reasons = {rejection.offset: rejection.reason for rejection in staged.lanes[0].rejections}
    assert reasons[1] == "column Amount: does not fit NUMERIC(18,2)"
    assert "`$.Amount`" in reasons[2]
    assert reasons[3] == "no captured table has type unheard_of"
    assert "missing required field" in staged.lanes[1].rejections[0].reason
    [state] = parts.load_states(deployment.database)
    assert (state.type, state.waiting_parts, state.waiting_rows) == ("payment", 1, 1)


def test_objects_are_encrypted_at_rest(deployment: Deployment) -> None:
    deployment.stage(event("payment", "6", 1, 10))
    batch = parts.freeze(deployment.database, "payment", Due(0.0, 1))
    assert batch is not None
    [part] = batch.parts
    head = Bucket(deployment.bucket.name)._client.head_object(
        Bucket=deployment.bucket.name, Key=part.location
    )
    assert head["ServerSideEncryption"] == "AES256"
    assert head["ContentLength"] == part.bytes
    assert part.location.startswith(f"parts/{deployment.schema}/payment/")


def _part(number: int, *, size: int = 10, marker: str = "_NULL_", shape: str = "s") -> Part:
    return Part(uuid.UUID(int=number), "payment", shape, marker, f"parts/{number}", 1, size, number, number)


def _numbers(batch: parts.Batch | None) -> list[int]:
    return [part.id.int for part in batch.parts] if batch else []


def test_the_oldest_parts_of_one_marker_and_shape_are_frozen_first(deployment: Deployment) -> None:
    database = deployment.database
    for number in range(1, 7):
        parts.insert(
            database,
            [_part(number, marker="N1" if number == 3 else "_NULL_", shape="t" if number == 5 else "s")],
        )
    frozen = []
    while (batch := parts.freeze(database, "payment", Due(0.0, 1000, parts=2))) is not None:
        frozen.append(_numbers(batch))
        parts.loaded(database, batch.id, 1, 0)
    assert frozen == [[1, 2], [3], [4, 6], [5]]


def test_bytes_cap_a_batch_and_make_parts_due(deployment: Deployment) -> None:
    database = deployment.database
    parts.insert(database, [_part(1)])
    assert parts.freeze(database, "payment", Due(3600.0, 25)) is None
    for number in (2, 3, 4):
        parts.insert(database, [_part(number)])
    batch = parts.freeze(database, "payment", Due(3600.0, 25))
    assert _numbers(batch) == [1, 2, 3]


def test_a_frozen_batch_never_changes(deployment: Deployment) -> None:
    database = deployment.database
    parts.insert(database, [_part(1)])
    frozen = parts.freeze(database, "payment", Due(0.0, 100))
    parts.insert(database, [_part(2)])
    assert parts.open_batch(database, "payment") == frozen
