"""COPY's input on S3: the manifest and the files it names."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import zstandard
from botocore.exceptions import BotoCoreError, ClientError

from devstack.redshift.errors import SqlError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_URL = re.compile(r"s3://([^/]+)/(.+)")


class Meta(msgspec.Struct, frozen=True):
    """What a manifest may say about a file."""

    content_length: int | None = None


class Entry(msgspec.Struct, frozen=True):
    """One file of a manifest. Without `mandatory` a missing file is skipped in silence, as in Redshift."""

    url: str
    mandatory: bool = False
    meta: Meta = Meta()


class Manifest(msgspec.Struct, frozen=True):
    """A manifest's content."""

    entries: list[Entry]


@dataclass(frozen=True, slots=True)
class Part:
    """A file to load: its URL and its uncompressed content."""

    url: str
    content: BinaryIO


def parts(s3: S3Client, manifest_url: str, *, zstd: bool) -> Iterator[Part]:
    """The manifest's files one after another. Raises SqlError as COPY would."""
    found = False
    for entry in _read_manifest(s3, manifest_url).entries:
        body = _fetch(s3, entry.url, "file")
        if body is None and entry.mandatory:
            raise _no_such_key(entry.url)
        if body is None:
            continue
        if entry.meta.content_length not in (None, len(body)):
            raise SqlError(f"meta.content_length does not match the size of {entry.url}", "XX000")
        found = True
        yield Part(entry.url, _uncompressed(body, entry.url) if zstd else io.BytesIO(body))
    if not found:
        raise SqlError("The manifest names no file that exists", "XX000")


def _read_manifest(s3: S3Client, url: str) -> Manifest:
    body = _fetch(s3, url, "manifest")
    if body is None:
        raise SqlError(f"Problem reading manifest file - {_no_such_key(url).message}", "XX000")
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise SqlError(f"Manifest file is not in correct json format: {error}", "XX000") from error
    for entry in manifest.entries:
        if not _URL.fullmatch(entry.url):
            raise SqlError("COPY with MANIFEST parameter requires full path of an S3 object.", "XX000")
    return manifest


def _fetch(s3: S3Client, url: str, what: str) -> bytes | None:
    located = _URL.fullmatch(url)
    if not located:
        raise SqlError(f"The {what} location {url} is not valid", "XX000")
    try:
        return s3.get_object(Bucket=located[1], Key=located[2])["Body"].read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "NoSuchBucket"):
            return None
        raise SqlError(f"S3ServiceException: {error}", "XX000") from error
    except BotoCoreError as error:
        raise SqlError(f"S3ServiceException: {error}", "XX000") from error


def _no_such_key(url: str) -> SqlError:
    words = "S3ServiceException:The specified key does not exist.,Status 404,Error NoSuchKey"
    return SqlError(f"{words} ({url})", "XX000")


def _uncompressed(body: bytes, url: str) -> BinaryIO:
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True)
        return io.BytesIO(reader.read())
    except zstandard.ZstdError as error:
        raise SqlError(f"{url} is not valid ZSTD: {error}", "XX000") from error
