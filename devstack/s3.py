"""S3 by moto's server: objects live in its memory and end with it.

`python -m devstack.s3 PORT MARK` is its process; MARK is only there to be recognised by.
"""

import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import main as moto_server

from devstack import process
from devstack.home import here
from devstack.service import NotReady, Say, Service

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "merchant-pipeline"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "devstack", "devstack"  # moto takes any; the server is on loopback


class S3(Service):
    """Where the warehouse's parts are staged."""

    __slots__ = ()
    name: ClassVar[str] = "s3"

    @property
    def data(self) -> None:
        """It keeps nothing."""
        return

    @property
    def identity(self) -> process.Identity:
        """The module and this clone's state directory."""
        return process.Identity("python", ("devstack.s3", str(self.site.home.state)))

    def prepare(self, say: Say) -> None:
        """Nothing: moto is a Python package."""

    def command(self) -> list[str]:
        """This module."""
        return [sys.executable, "-m", "devstack.s3", str(self.port), str(self.site.home.state)]

    @property
    def cwd(self) -> Path:
        """Where `devstack` can be imported from."""
        return here().repo

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def probe(self) -> str:
        """The list of buckets."""
        try:
            self._client().list_buckets()
        except (BotoCoreError, ClientError) as error:
            raise NotReady(str(error)) from error
        return f"moto {version('moto')}"

    def settle(self) -> None:
        """The bucket. Making it again is no error in this region."""
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self) -> "S3Client":
        session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        limits = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
        return session.client("s3", endpoint_url=self.url, config=limits)


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request otherwise
    moto_server(["-H", "127.0.0.1", "-p", sys.argv[1]])
