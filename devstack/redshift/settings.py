"""What one running stand-in is made of."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devstack.redshift.backend import PostgresAddress
from devstack.redshift.statement_log import StatementLog

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DATABASE = "warehouse"
USER = "awsuser"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Addresses, credentials and state shared by all sessions."""

    postgres: PostgresAddress
    s3: S3Client
    state: Path
    tls: ssl.SSLContext
    log: StatementLog
    isolation: str
    password: str = field(repr=False)
    user: str = USER
    database: str = DATABASE
