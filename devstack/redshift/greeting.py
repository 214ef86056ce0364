"""How a connection begins: TLS, the startup parameters, the password, and what the server says of itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from devstack.redshift import results, wire
from devstack.redshift.auth import DigestChallenge
from devstack.redshift.backend import Backend
from devstack.redshift.errors import SqlError
from devstack.redshift.settings import Cluster

_SERVER_VERSION = "8.0.2"  # what Redshift says it is


@dataclass(frozen=True, slots=True)
class Greeted:
    """A client let in: its PostgreSQL session and the version of Redshift's protocol it speaks."""

    backend: Backend
    protocol: int


async def greet(
    cluster: Cluster, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Greeted | None:
    """Let the client in, or None when it leaves. Raises SqlError for one that is refused."""
    parameters = await _startup(cluster, reader, writer)
    if parameters is None:
        return None
    user = parameters.get("user", "")
    if not await _authenticated(cluster, user, reader, writer):
        raise SqlError(f'password authentication failed for user "{user}"', "28000")
    database = parameters.get("database") or user
    if database != cluster.database:
        raise SqlError(f'database "{database}" does not exist', "3D000")
    protocol = min(int(parameters.get("client_protocol_version", 0)), results.BINARY_PROTOCOL)
    backend = await Backend.connect(cluster.postgres, database)
    writer.write(_welcome(backend, protocol))
    await writer.drain()
    return Greeted(backend, protocol)


async def _startup(
    cluster: Cluster, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> dict[str, str] | None:
    """The startup parameters, read inside TLS."""
    code, _ = await wire.read_untyped(reader)
    if code != wire.SSL_REQUEST:
        raise SqlError("no entry for a connection without SSL", "28000")
    writer.write(b"S")
    await writer.drain()
    await writer.start_tls(cluster.tls)
    code, body = await wire.read_untyped(reader)
    return wire.startup_parameters(body) if code == wire.PROTOCOL_3 else None


async def _authenticated(
    cluster: Cluster, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    challenge = DigestChallenge()
    writer.write(challenge.request())
    await writer.drain()
    kind, answer = await wire.read_message(reader)
    return kind == b"d" and challenge.accepts(answer, cluster.password) and user == cluster.user


def _welcome(backend: Backend, protocol: int) -> bytes:
    greeting = [
        wire.parameter_status("server_version", _SERVER_VERSION)
        if body.startswith(b"server_version\0")
        else wire.message(kind, body)
        for kind, body in backend.greeting
    ]
    version = wire.parameter_status("server_protocol_version", str(protocol))
    return b"".join([wire.message(b"R", b"\0\0\0\0"), *greeting, version, wire.message(b"Z", b"I")])
