"""Fault points, armed through files so that a test in another process can set them.

- `drop-commit-answer`: PostgreSQL commits, then the client's connection is cut before the answer.
- `drop-before-commit`: the connection is cut when COMMIT arrives; nothing is committed.
- `kill-during-copy`: the connection is cut after COPY's first rows have reached PostgreSQL.

The two COMMIT faults wait for a transaction in which a COPY ran, so that a reader's COMMIT does not use
them up.
"""

from __future__ import annotations

import uuid
from pathlib import Path

DROP_COMMIT_ANSWER = "drop-commit-answer"
DROP_BEFORE_COMMIT = "drop-before-commit"
KILL_DURING_COPY = "kill-during-copy"
NAMES = (DROP_COMMIT_ANSWER, DROP_BEFORE_COMMIT, KILL_DURING_COPY)


def arm(state_dir: str | Path, name: str, count: int = 1) -> None:
    """Make the fault fire `count` more times at the stand-in that runs on this state directory."""
    if name not in NAMES:
        raise ValueError(f"no fault point {name!r}: one of {', '.join(NAMES)}")
    folder = Path(state_dir) / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(count):
        (folder / f"{name}.{uuid.uuid4().hex}").touch()


def armed(state_dir: str | Path, name: str) -> int:
    """How often the fault will still fire."""
    return len(_files(Path(state_dir), name))


def take(state: Path, name: str) -> bool:
    """Use up one firing; False when the fault is not armed. Unlinking is the atomic claim."""
    for path in _files(state, name):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        return True
    return False


def _files(state: Path, name: str) -> list[Path]:
    return sorted((state / "faults").glob(f"{name}.*"))
