"""Passwords on both sides: Redshift's digest for clients, PostgreSQL's methods for the database behind."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import struct

from devstack.redshift import wire

DIGEST_CODE = 13  # Redshift's own authentication request
_SHA256 = 0


class DigestChallenge:
    """Redshift's digest: SHA256(SHA256(password + salt) + server nonce + client nonce)."""

    def __init__(self) -> None:
        self._salt, self._nonce = secrets.token_bytes(16), secrets.token_bytes(16)

    def request(self) -> bytes:
        """The authentication request to send."""
        parts = (
            struct.pack("!iii", DIGEST_CODE, _SHA256, 16) + self._salt + struct.pack("!i", 16) + self._nonce
        )
        return wire.message(b"R", parts)

    def accepts(self, answer: bytes, password: str) -> bool:
        """Whether the client's answer (length, digest, length, nonce) was made with this password."""
        size = struct.unpack("!i", answer[:4])[0]
        digest, client_nonce = answer[4 : 4 + size], answer[8 + size :]
        inner = hashlib.sha256(password.encode() + self._salt).digest()
        expected = hashlib.sha256(inner + self._nonce + client_nonce).digest()
        return hmac.compare_digest(expected, digest)


def md5_answer(user: str, password: str, salt: bytes) -> bytes:
    """The body of the answer to PostgreSQL's md5 request."""
    inner = hashlib.md5((password + user).encode()).hexdigest()
    return wire.text("md5" + hashlib.md5(inner.encode() + salt).hexdigest())


class Scram:
    """The client's half of SCRAM-SHA-256 without channel binding (RFC 5802), on a private socket."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._bare = b"n=,r=" + secrets.token_urlsafe(18).encode()

    def first(self) -> bytes:
        """SASLInitialResponse: mechanism and first message."""
        opening = b"n,," + self._bare
        return wire.text("SCRAM-SHA-256") + struct.pack("!i", len(opening)) + opening

    def final(self, server_first: bytes) -> bytes:
        """The proof, from the server's first message."""
        given = dict(part.split(b"=", 1) for part in server_first.split(b","))
        rounds, salt = int(given[b"i"]), base64.b64decode(given[b"s"])
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = b"c=biws,r=" + given[b"r"]
        signed = b",".join((self._bare, server_first, without_proof))
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return without_proof + b",p=" + base64.b64encode(proof)
