"""The Redshift stand-in's process: `python -m devstack.redshift serve`, over our PostgreSQL and S3."""

import os
import ssl
import sys
from pathlib import Path
from typing import ClassVar

import redshift_connector
from redshift_connector.core import Connection
from redshift_connector.error import Error

from devstack import postgres, process
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
        self._bundle()
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

    def _bundle(self) -> None:
        """Join the authorities and let this process trust them too. Raises NotReady before the stand-in made its own."""
        own = self.data / "ca.pem"
        if not own.exists():
            raise NotReady("its certificate is not made yet")
        text = _system_authorities(self.bundle) + "\n" + own.read_text()
        if not self.bundle.exists() or self.bundle.read_text() != text:
            self.bundle.write_text(text)
        os.environ["SSL_CERT_FILE"] = str(self.bundle)


def _system_authorities(ours: Path) -> str:
    """What this machine trusts: SSL_CERT_FILE as it was before it became ours, else OpenSSL's own file."""
    paths = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().openssl_cafile]
    files = (Path(path) for path in paths if path and Path(path) != ours)
    return next((file.read_text() for file in files if file.exists()), "")
