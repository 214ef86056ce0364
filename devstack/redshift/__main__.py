"""`python -m devstack.redshift serve …` and `… fault NAME --state DIR`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from devstack.redshift import faults
from devstack.redshift.backend import PostgresAddress
from devstack.redshift.rewrite import SERIALIZABLE, SNAPSHOT
from devstack.redshift.server import Options, serve

PASSWORD_VARIABLE = "REDSHIFT_STANDIN_PASSWORD"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    given = _parser().parse_args(arguments)
    if given.command == "fault":
        faults.arm(given.state, given.name, given.count)
        return
    asyncio.run(serve(_options(given)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devstack.redshift", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="serve until SIGTERM")
    server.add_argument("--port", type=int, required=True)
    server.add_argument("--pg-host", required=True, help="directory of PostgreSQL's unix socket")
    server.add_argument("--pg-port", type=int, required=True)
    server.add_argument("--pg-user", required=True)
    server.add_argument("--pg-password-env", required=True, help="variable that holds its password")
    server.add_argument("--s3", required=True, help="URL of the S3 endpoint")
    server.add_argument("--state", type=Path, required=True, help="certificates, log and armed faults")
    server.add_argument("--isolation", choices=("snapshot", "serializable"), default="snapshot")
    fault = commands.add_parser("fault", help="arm a fault point")
    fault.add_argument("name", choices=faults.NAMES)
    fault.add_argument("--count", type=int, default=1)
    fault.add_argument("--state", type=Path, required=True)
    return parser


def _options(given: argparse.Namespace) -> Options:
    password = os.environ.get(PASSWORD_VARIABLE)
    if not password:
        sys.exit(f"{PASSWORD_VARIABLE} is not set: it is the password of user awsuser")
    pg_password = os.environ.get(given.pg_password_env, "")
    return Options(
        port=given.port,
        postgres=PostgresAddress(given.pg_host, given.pg_port, given.pg_user, pg_password),
        s3_url=given.s3,
        state=given.state,
        password=password,
        isolation=SERIALIZABLE if given.isolation == "serializable" else SNAPSHOT,
    )


if __name__ == "__main__":
    main()
