"""A consumer that writes down what it is given, in the order in which it is given it.

One line per event, appended before the lane is done, as a sink would: merchant, position, version, the step its
writer numbered it with, and whether its old image is the newest image recorded for that key.
"""

import fcntl
import json
import os
from typing import Any, BinaryIO

import msgspec

from pipeline.consumer import Event, Turn
from pipeline.domain.routing import encode_key
from pipeline.failpoints import passes


def record(turn: Turn) -> None:
    """Append the turn to $RECORDING; writers take turns by the file's lock."""
    lines = "".join(
        json.dumps(_line(turn.token, lane.merchant, offset, event)) + "\n"
        for lane in turn
        for offset, event in zip(lane.offsets, lane.events, strict=True)
    )
    passes("recorder.claimed")
    with open(os.environ["RECORDING"], "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _cut_what_is_torn(file)
        file.write(lines.encode())
    passes("recorder.written")
    for lane in turn:
        lane.done()


def complete_lines(recording: bytes) -> list[bytes]:
    """The lines that have been written to their end; whoever is killed, stopped or read meanwhile leaves a torn one."""
    return recording[: recording.rfind(b"\n") + 1].splitlines()


def _cut_what_is_torn(file: BinaryIO) -> None:
    """Take away the line that a killed writer began: its lane was not done, so its event comes again."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if size and file.read() != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _line(token: int, merchant: str, offset: int, event: Event) -> dict[str, Any]:
    before, after = msgspec.json.decode(event.before), msgspec.json.decode(event.after)
    return {
        "token": token,
        "merchant": merchant,
        "offset": offset,
        "op": event.op,
        "key": f"{event.src}/{event.type}/{encode_key(event.key)}",
        "version": event.version,
        "before": before,
        "after": after,
        "step": (after or before or {}).get("step"),
    }
