"""Where things lie: the clone, its `.devstack/`, and PostgreSQL's directory outside it when root runs the stack."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_LIMIT = 107  # bytes of sun_path on Linux, without the closing NUL


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one clone's stack."""

    repo: Path

    @property
    def state(self) -> Path:
        """Everything the stack writes, save PostgreSQL's data under root."""
        return self.repo / ".devstack"

    @property
    def logs(self) -> Path:
        """One file per service."""
        return self.state / "logs"

    @property
    def dotenv(self) -> Path:
        """The file that tells addresses and passwords to everything else."""
        return self.repo / ".env"

    @property
    def secrets(self) -> Path:
        """Generated passwords, mode 0600."""
        return self.state / "secrets.json"

    @property
    def digest(self) -> str:
        """Names this clone outside its own directory."""
        return hashlib.sha256(str(self.repo).encode()).hexdigest()[:12]

    @property
    def postgres(self) -> Path:
        """PostgreSQL refuses to run as root, and its user may not be able to enter the clone."""
        if os.geteuid() == 0:
            return Path("/var/lib/merchant-pipeline") / self.digest
        return self.state / "postgres"

    @property
    def postgres_socket(self) -> Path:
        """Beside the data, or in /tmp when the path would be too long for a socket."""
        near = self.postgres / "socket"
        if len(os.fsencode(near / ".s.PGSQL.65535.lock")) <= SOCKET_PATH_LIMIT:
            return near
        return Path(f"/tmp/merchant-pipeline-{os.geteuid()}-{self.digest}")


def here() -> Home:
    """The clone this package lies in."""
    return Home(Path(__file__).resolve().parent.parent)
