"""Redis 7: the lanes' store. Nothing is written to disk: losing all of it loses nothing."""

import shutil
from pathlib import Path
from typing import ClassVar

from redis import Redis as Client
from redis.exceptions import RedisError

from devstack import dotenv, process
from devstack.service import NotReady, Say, Service, Unavailable

CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {directory}
appendonly no
save ""
maxmemory 512mb
maxmemory-policy noeviction
daemonize no
set-proc-title no
"""


class Redis(Service):
    """The lanes, Celery's broker and the heartbeats."""

    __slots__ = ()
    name: ClassVar[str] = "redis"

    @property
    def data(self) -> None:
        """It keeps nothing."""
        return

    @property
    def configuration(self) -> Path:
        """Also what its process is recognised by."""
        return self.site.home.state / "redis" / "redis.conf"

    @property
    def identity(self) -> process.Identity:
        """`redis-server <our file>`; set-proc-title keeps it so."""
        return process.Identity("redis-server", (str(self.configuration),))

    def prepare(self, say: Say) -> None:
        """Write the configuration; the password lies in the file, not on the command line."""
        if not shutil.which("redis-server"):
            raise Unavailable("redis-server is not installed", "Run `make setup`.")
        self.configuration.parent.mkdir(parents=True, exist_ok=True)
        password, directory = self.site.passwords.redis, self.configuration.parent
        text = CONFIGURATION.format(port=self.port, password=password, directory=f'"{directory}"')
        dotenv.write_private(self.configuration, text)

    def command(self) -> list[str]:
        """The server in the foreground."""
        return ["redis-server", str(self.configuration)]

    def probe(self) -> str:
        """INFO, with the password."""
        try:
            with Client(port=self.port, password=self.site.passwords.redis, socket_timeout=2) as client:
                return str(client.info("server")["redis_version"])
        except RedisError as error:
            raise NotReady(str(error)) from error
