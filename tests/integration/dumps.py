"""A database's schema as text."""

import subprocess

from tests.integration.captured import Captured


def dumped(captured: Captured) -> str:
    """The schema as pg_dump writes it, but for the token it draws each time."""
    dump = ["pg_dump", "--schema-only", "--dbname", captured.source.admin_url]
    text = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )
