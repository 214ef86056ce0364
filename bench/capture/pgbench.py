"""pgbench, PostgreSQL's own client in C: a hand's breadth of CPU per transaction, so that the server is what is measured."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from devstack.postgres import BIN

CLIENTS = 4
_TPS = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)


def transactions_per_s(url: str, script: str, file: Path, *, seconds: float, durable: bool) -> float:
    """Run one statement as fast as four clients can, prepared, each a transaction of its own.

    `durable`: with synchronous_commit on. `file` is where the script is put.
    """
    file.write_text(script)
    parts = urlsplit(url)
    done = subprocess.run(
        [
            str(BIN / "pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", "--jobs=2",
            f"--time={max(1, round(seconds))}", f"--file={file}", f"--host={parts.hostname}", f"--port={parts.port}",
            f"--username={unquote(parts.username or '')}", parts.path.strip("/"),
        ],
        env={
            "PATH": os.environ.get("PATH", os.defpath),
            "PGPASSWORD": unquote(parts.password or ""),
            "PGOPTIONS": f"-c synchronous_commit={'on' if durable else 'off'}",
        },
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"pgbench: {done.stderr}")
    return rate_in(done.stdout)


def rate_in(output: str) -> float:
    """Transactions per second, connecting left out."""
    found = _TPS.search(output)
    if found is None:
        raise ValueError(f"no tps in pgbench's output: {output!r}")
    return float(found[1])
