"""The Lua scripts of the lanes: loading, calling, and what their errors mean."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import redis

from pipeline.errors import EpochLostError, FencedError, PermanentError, StoreFullError, TransientError

Argument = bytes | str | int | float


@cache
def text(name: str) -> str:
    """The whole of a script: its flags, what all scripts share, its own lines."""
    folder = files("pipeline.lanes") / "lua"
    flags, _, own = (folder / f"{name}.lua").read_text().partition("\n")
    return f"{flags}\n{(folder / 'lane.lua').read_text()}{own}"


@cache
def sha(name: str) -> str:
    """The name under which Redis knows a script."""
    return hashlib.sha1(text(name).encode(), usedforsecurity=False).hexdigest()


def command(name: str, namespace: str, *arguments: Argument) -> tuple[Argument, ...]:
    """The Redis command that runs a script which Redis knows already."""
    return ("EVALSHA", sha(name), 1, namespace, *arguments)


def call(client: redis.Redis, name: str, namespace: str, *arguments: Argument) -> Any:
    """Run a script, loading it when Redis does not know it; errors are the pipeline's."""
    with translated_errors():
        try:
            return client.evalsha(sha(name), 1, namespace, *arguments)
        except redis.exceptions.NoScriptError:
            client.script_load(text(name))
            return client.evalsha(sha(name), 1, namespace, *arguments)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Redis errors as the pipeline's own."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise StoreFullError("lane store: Redis is full", hint="it drains as sinks accept") from error
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.ReadOnlyError) as error:
        raise TransientError(f"lane store: {type(error).__name__}", hint="see REDIS_URL") from error
    except redis.ResponseError as error:
        raise _refusal(str(error)) from error


def _refusal(message: str) -> Exception:
    if message.startswith("EPOCHLOST"):
        return EpochLostError("lane store: the lanes were emptied")
    if message.startswith("FENCED"):
        return FencedError(f"lane store: {message.removeprefix('FENCED ')}")
    return PermanentError(f"lane store: {message[:200]}")
