"""Addresses and secrets from the environment: every problem names the variable, never its value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from pipeline.kafka_security import KafkaSecurity, Mechanism, Protocol


class Environment(BaseModel):
    """Addresses and secrets. Every value is hidden in reprs; errors name the variable, never its value."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    control_database_url: Annotated[SecretStr, Field(alias="CONTROL_DATABASE_URL")]
    kafka_bootstrap_servers: Annotated[str, Field(alias="KAFKA_BOOTSTRAP_SERVERS", min_length=3)]
    kafka_security_protocol: Annotated[Protocol, Field(alias="KAFKA_SECURITY_PROTOCOL")] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[Mechanism, Field(alias="KAFKA_SASL_MECHANISM")] = "SCRAM-SHA-512"
    kafka_sasl_username: Annotated[str | None, Field(alias="KAFKA_SASL_USERNAME")] = None
    kafka_sasl_password: Annotated[SecretStr | None, Field(alias="KAFKA_SASL_PASSWORD")] = None
    kafka_ca: Annotated[str | None, Field(alias="KAFKA_CA")] = None
    kafka_certificate: Annotated[str | None, Field(alias="KAFKA_CERTIFICATE")] = None
    kafka_key: Annotated[SecretStr | None, Field(alias="KAFKA_KEY")] = None
    redis_url: Annotated[SecretStr, Field(alias="REDIS_URL")]
    elasticsearch_url: Annotated[SecretStr, Field(alias="ELASTICSEARCH_URL")]
    redshift_url: Annotated[SecretStr, Field(alias="REDSHIFT_URL")]
    s3_bucket: Annotated[str, Field(alias="S3_BUCKET", pattern=r"^[a-z0-9][a-z0-9.-]{2,62}$")]
    port: Annotated[int, Field(alias="PORT", ge=1, le=65535)] = 8000
    source_urls: dict[str, SecretStr] = {}

    @property
    def kafka_security(self) -> KafkaSecurity:
        """How to speak to the brokers."""
        return KafkaSecurity(
            protocol=self.kafka_security_protocol,
            mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_sasl_username,
            password=_revealed(self.kafka_sasl_password),
            ca=self.kafka_ca,
            certificate=self.kafka_certificate,
            key=_revealed(self.kafka_key),
        )

    @model_validator(mode="after")
    def _one_security(self) -> Environment:
        """What belongs together is there; what would be ignored is refused."""
        asks = self.kafka_security_protocol.startswith("SASL")
        sasl = [self.kafka_sasl_username, self.kafka_sasl_password]
        tls = [self.kafka_ca, self.kafka_certificate, self.kafka_key]
        if asks and None in sasl:
            raise ValueError(
                "KAFKA_SECURITY_PROTOCOL is SASL_SSL: KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD are required"
            )
        if not asks and any(sasl):
            raise ValueError(
                "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD need KAFKA_SECURITY_PROTOCOL=SASL_SSL"
            )
        if self.kafka_security_protocol == "PLAINTEXT" and any(tls):
            raise ValueError(
                "KAFKA_CA, KAFKA_CERTIFICATE and KAFKA_KEY need KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL"
            )
        if (self.kafka_certificate is None) != (self.kafka_key is None):
            raise ValueError("KAFKA_CERTIFICATE and KAFKA_KEY come together")
        return self


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def read(variables: Mapping[str, str], sources: Sequence[str]) -> tuple[Environment | None, list[str]]:
    """The environment of these sources, or None and everything that is wrong with it, one sentence each."""
    names = {source: f"{source.upper()}_DATABASE_URL" for source in sources}
    urls = {source: variables[name] for source, name in names.items() if variables.get(name)}
    problems = [
        f"environment: {name} is required (the URL of source {s})"
        for s, name in names.items()
        if s not in urls
    ]
    problems += _url_problems(variables, names)
    try:
        environment = Environment.model_validate({**variables, "source_urls": urls})
    except ValidationError as error:
        return None, problems + [_variable_problem(problem) for problem in error.errors()]
    return (None, problems) if problems else (environment, [])


def postgres_url_problem(url: str) -> str:
    """What is wrong with the URL of a PostgreSQL database, without any of it; empty when nothing is."""
    return _url_problem(url, _SCHEMES["CONTROL_DATABASE_URL"])


def sentence(message: str) -> str:
    """A validator's message as the end of a sentence."""
    return message[:1].lower() + message[1:]


def _variable_problem(problem: Any) -> str:
    if not problem["loc"]:
        return f"environment: {problem['msg'].removeprefix('Value error, ')}"
    message = "is required" if problem["type"] == "missing" else sentence(problem["msg"])
    return f"environment: {problem['loc'][0]} {message}"


_SCHEMES = {
    "CONTROL_DATABASE_URL": ("postgresql://", "postgres://"),
    "REDIS_URL": ("redis://", "rediss://"),
    "ELASTICSEARCH_URL": ("http://", "https://"),
    "REDSHIFT_URL": ("redshift://",),
}


# A password with an "@", "/" or "%" of its own would be read as another host, and shown by whoever fails to reach it.
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^@/?#\s:,\[\]]*)(?::\d*)?"
_URL = re.compile(rf"[a-z]+://(?:[^@/?#\s]*@)?{_HOST}(?:,{_HOST})*(?:[/?#][^@\s]*)?")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def _url_problems(variables: Mapping[str, str], source_names: Mapping[str, str]) -> list[str]:
    schemes = _SCHEMES | dict.fromkeys(source_names.values(), _SCHEMES["CONTROL_DATABASE_URL"])
    found = {name: _url_problem(variables[name], schemes[name]) for name in schemes if variables.get(name)}
    return [f"environment: {name} {problem}" for name, problem in found.items() if problem]


def _url_problem(url: str, schemes: Sequence[str]) -> str:
    """What is wrong with a URL, without any of it; empty when nothing is."""
    if not url.startswith(tuple(schemes)):
        return f"must start with {' or '.join(schemes)}"
    if not _URL.fullmatch(url) or _BARE_PERCENT.search(url):
        return "is no URL; percent-encode special characters in user and password"
    return ""
