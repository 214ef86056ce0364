"""The one table from the Kafka client's errors to ours, for what reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import errors as kafka_errors

from pipeline.errors import FencedError, PermanentError, PositionLostError, TransientError

_FENCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.RebalanceInProgressError,
)
_LOST = (
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.LogTruncationError,
)
_PERMANENT = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.CorruptRecordError,
    kafka_errors.UnsupportedVersionError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Kafka's errors as ours."""
    try:
        yield
    except kafka_errors.FencedInstanceIdError as error:
        raise PermanentError(
            "kafka: another process has joined the group under this one's instance name",
            hint="give each bridge an --instance of its own, or none",
        ) from error
    except _FENCED as error:
        raise FencedError(f"kafka: {type(error).__name__}: another member may own the partition") from error
    except _LOST as error:
        raise PositionLostError(f"kafka: {type(error).__name__}: {error}") from error
    except _PERMANENT as error:
        raise PermanentError(f"kafka: {type(error).__name__}: {error}") from error
    except kafka_errors.KafkaError as error:
        reason = f"kafka: {type(error).__name__}: {error}"
        raise TransientError(reason, hint="see KAFKA_BOOTSTRAP_SERVERS") from error
