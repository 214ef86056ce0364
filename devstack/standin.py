"""The Redshift stand-in's process: `python -m devstack.redshift serve`, over our PostgreSQL and S3."""

import os
import ssl
import sys
from pathlib import Path
from typing import ClassVar

import redshift_connector
from redshift_connector.core import Connection
from redshift_connector.error import Error

from devstack import dotenv, postgres, process
from devstack.home import here
from devstack.s3 import ACCESS_KEY, REGION, S3, SECRET_KEY
from devstack.service import NotReady, Say, Service, Unavailable

USER, DATABASE = "awsuser", "warehouse"
POSTGRES_PASSWORD = "DEVSTACK_POSTGRES_PASSWORD"
PASSWORD = "REDSHIFT_STANDIN_PASSWORD"


class Redshift(Service):
    """The warehouse."""

    __slots__ = ()
    name: ClassVar[str] = "redshift"
    needs: ClassVar[tuple[str, ...]] = ("postgres", "s3")

    @property
    def data(self) -> Path:
        """Its certificates; the tables are PostgreSQL's database `warehouse`."""
        return self.site.home.state / "redshift"

    @property
    def bundle(self) -> Path:
        """What SSL_CERT_FILE names: the system's authorities and the stand-in's own."""
        return self.data / "ca-bundle.pem"

    @property
    def cwd(self) -> Path:
        """Where `devstack` can be imported from."""
        return here().repo

    @property
    def identity(self) -> process.Identity:
        """The module with our state directory."""
        return process.Identity("python", ("devstack.redshift", "serve", str(self.data)))

    def prepare(self, say: Say) -> None:
        """Its directory."""
        if not (Path(__file__).parent / "redshift" / "__main__.py").exists():
            raise Unavailable("there is no devstack/redshift in this clone", "The warehouse cannot be used.")
        self.data.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Passwords go by the environment."""
        options = {
            "--port": str(self.port),
            "--pg-host": str(self.site.home.postgres_socket),
            "--pg-port": str(self.site.ports["postgres"]),
            "--pg-user": postgres.SUPERUSER,
            "--pg-password-env": POSTGRES_PASSWORD,
            "--s3": S3(self.site).url,
            "--state": str(self.data),
        }
        words = [word for option in options.items() for word in option]
        return [sys.executable, "-m", "devstack.redshift", "serve", *words]

    def environment(self) -> dict[str, str]:
        """With both passwords, and what COPY reads the bucket with."""
        passwords = self.site.passwords
        return {
            **os.environ,
            POSTGRES_PASSWORD: passwords.postgres_devstack,
            PASSWORD: passwords.redshift,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def probe(self) -> str:
        """`select 1` by the real driver, over TLS that names the host."""
        self._trust()
        try:
            with self._connect() as session, session.cursor() as cursor:
                session.autocommit = True
                cursor.execute("select 1")
                cursor.fetchall()
        except (Error, OSError) as error:
            raise NotReady(str(error)) from error
        return "stand-in"

    def _connect(self) -> Connection:
        return redshift_connector.connect(
            host="localhost",
            port=self.port,
            database=DATABASE,
            user=USER,
            password=self.site.passwords.redshift,
            timeout=5,
            ssl=True,
            sslmode="verify-full",
        )

    def _trust(self) -> None:
        """Join the authorities and let this process trust them. Raises NotReady before the stand-in has made its own."""
        own = self.data / "ca.pem"
        if not own.exists():
            raise NotReady("its certificate is not made yet")
        _keep(self.bundle, self._machine_authorities() + "\n" + own.read_text())
        os.environ["SSL_CERT_FILE"] = str(self.bundle)

    def _machine_authorities(self) -> str:
        """What this machine trusts besides: SSL_CERT_FILE as it was before it became ours, else OpenSSL's own file."""
        kept = self.data / "machine.pem"
        named = os.environ.get("SSL_CERT_FILE")
        if named == str(self.bundle) and kept.exists():
            return kept.read_text()
        if not named or named == str(self.bundle):
            named = ssl.get_default_verify_paths().openssl_cafile
        text = Path(named).read_text() if Path(named).exists() else ""
        _keep(kept, text)
        return text


def _keep(path: Path, text: str) -> None:
    """Write a file that differs, in one step: others may be reading it."""
    if not path.exists() or path.read_text() != text:
        dotenv.write_private(path, text)
