"""Generated passwords, kept for the life of the stack's data."""

import json
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from devstack import dotenv


@dataclass(frozen=True, slots=True, repr=False)
class Passwords:
    """One password per user; hexadecimal, so that they need no quoting in URLs and configuration files."""

    postgres_devstack: str
    postgres_app: str
    postgres_pipeline: str
    redis: str
    redshift: str


def load(path: Path) -> Passwords:
    """Read the passwords, making those that are missing."""
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    made = Passwords(
        **{field.name: known.get(field.name) or secrets.token_hex(16) for field in fields(Passwords)}
    )
    if asdict(made) != known:
        dotenv.write_private(path, json.dumps(asdict(made), indent=1) + "\n")
    return made
