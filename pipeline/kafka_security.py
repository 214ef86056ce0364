"""How clients speak to Kafka: in the clear on a network of one's own, or over TLS that is always verified.

Passwords never travel in the clear: SASL is spoken over TLS only. Certificates are paths, or the text itself as a PaaS
gives it.
"""

from __future__ import annotations

import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Protocol = Literal["PLAINTEXT", "SSL", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True, repr=False)
class KafkaSecurity:
    """`ca` signs the brokers' certificates (None: the system's authorities); `certificate` and `key` are ours, if any."""

    protocol: Protocol = "PLAINTEXT"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str | None = None
    password: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def kafka_python(self) -> dict[str, Any]:
        """Arguments for kafka-python's clients; OSError or ssl.SSLError when a certificate cannot be read."""
        if self.protocol == "PLAINTEXT":
            return {}
        options: dict[str, Any] = {"security_protocol": self.protocol, "ssl_context": self._context()}
        if self.protocol == "SASL_SSL":
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return options

    def librdkafka(self) -> dict[str, str]:
        """The same for confluent-kafka; OSError when a certificate cannot be read."""
        if self.protocol == "PLAINTEXT":
            return {}
        options: dict[str, str] = {"security.protocol": self.protocol}
        texts = {"ssl.ca.pem": self.ca, "ssl.certificate.pem": self.certificate, "ssl.key.pem": self.key}
        options |= {name: _text(pem) for name, pem in texts.items() if pem is not None}
        if self.protocol == "SASL_SSL":
            options["sasl.mechanism"] = self.mechanism
            options |= {"sasl.username": self.username or "", "sasl.password": self.password or ""}
        return options

    def _context(self) -> ssl.SSLContext:
        """Verifies certificate and host name."""
        context = ssl.create_default_context(cadata=None if self.ca is None else _text(self.ca))
        if self.certificate is not None:
            # The interpreter takes a client's certificate from a file only; it is gone once read.
            with tempfile.TemporaryDirectory() as private:
                file = Path(private, "client.pem")
                file.write_text(f"{_text(self.certificate)}\n{_text(self.key or '')}")
                context.load_cert_chain(file)
        return context


PLAINTEXT = KafkaSecurity()


def _text(pem: str) -> str:
    """A certificate or key from its path, or itself; newlines may be written as backslash and n, as in .env files."""
    return pem.replace("\\n", "\n") if "-----BEGIN" in pem else Path(pem).read_text()
