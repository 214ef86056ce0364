"""The bucket: parts and manifests of the warehouse, copies of detached lanes' records. The only file that knows boto3.

boto3 is loaded with the first bucket: it takes a fifth of a bridge's start, and bridges seldom need one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.errors import SinkUnavailableError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_UPLOADS = 8
_DELETES = 1000  # what one call takes


class Bucket:
    """One S3 bucket; endpoint, region and credentials come from the environment, as for every AWS client."""

    def __init__(self, name: str) -> None:
        import boto3
        from botocore.config import Config

        self.name = name
        limits = Config(
            connect_timeout=3,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            max_pool_connections=_UPLOADS,
        )
        self._client: S3Client = boto3.client("s3", config=limits)

    def url(self, key: str) -> str:
        """The object's address."""
        return f"s3://{self.name}/{key}"

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write all of these, encrypted at rest; SinkUnavailableError unless every one is durable."""
        with _translated(SinkUnavailableError), ThreadPoolExecutor(_UPLOADS) as pool:
            for _ in pool.map(self._put, objects.keys(), objects.values()):
                pass

    def _put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content, ServerSideEncryption="AES256")

    def get(self, key: str) -> bytes:
        """What an object holds; TransientError when S3 does not give it."""
        with _translated(TransientError):
            return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def delete(self, keys: Sequence[str]) -> None:
        """Delete; objects that are gone already are fine. TransientError when S3 refuses one of them."""
        for start in range(0, len(keys), _DELETES):
            chunk = keys[start : start + _DELETES]
            with _translated(TransientError):
                answer = self._client.delete_objects(
                    Bucket=self.name, Delete={"Objects": [{"Key": key} for key in chunk], "Quiet": True}
                )
            if answer.get("Errors"):
                raise TransientError(f"S3 bucket {self.name}: {answer['Errors'][0].get('Code')} on delete")

    def check(self) -> None:
        """TransientError unless the bucket can be reached."""
        with _translated(TransientError):
            self._client.head_bucket(Bucket=self.name)


@contextmanager
def _translated(kind: type[TransientError]) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise kind(f"S3 refused: {code}", hint="see S3_BUCKET and AWS_*") from error
    except BotoCoreError as error:
        raise kind(f"S3 does not answer: {type(error).__name__}", hint="see AWS_ENDPOINT_URL") from error
