"""CPU and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICK: int = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat: the parent, and the ticks of the process and of its children that have ended."""

    parent: int
    ticks: int


def parse_stat(line: str) -> Stat:
    """A process's name may hold blanks and brackets: fields count from the last ``)``."""
    fields = line.rpartition(")")[2].split()
    return Stat(parent=int(fields[1]), ticks=sum(map(int, fields[11:15])))


def parse_kilobytes(status: str, name: str) -> int:
    """A line such as ``VmHWM:  123 kB`` of /proc/PID/status, in bytes; 0 without it."""
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0


@dataclass(frozen=True, slots=True)
class Reading:
    """All processes at one moment."""

    stats: Mapping[int, Stat]

    def cpu_seconds(self, pid: int) -> float:
        """User and system time of a process and all below it, those that have ended included."""
        return sum(self.stats[one].ticks for one in family(self.stats, pid)) / _TICK


def read() -> Reading:
    """Look at every process there is."""
    stats = {}
    for entry in os.listdir(PROC):
        if entry.isdigit() and (text := _text(int(entry), "stat")):
            stats[int(entry)] = parse_stat(text)
    return Reading(stats)


def family(stats: Mapping[int, Stat], pid: int) -> list[int]:
    """A process and all below it; empty when it is gone."""
    below: dict[int, list[int]] = defaultdict(list)
    for child, stat in stats.items():
        below[stat.parent].append(child)
    found = [pid] if pid in stats else []
    for one in found:
        found += below[one]
    return found


def peak_bytes(pid: int) -> int:
    """The most memory a process ever held (VmHWM), and what those below it hold now and do not share."""
    below = family(read().stats, pid)[1:]
    return parse_kilobytes(_text(pid, "status"), "VmHWM") + sum(
        parse_kilobytes(_text(child, "status"), "RssAnon") for child in below
    )


def machine_seconds() -> float:
    """CPU seconds that the whole machine has been busy since it started."""
    fields = list(map(int, (PROC / "stat").read_text().splitlines()[0].split()[1:9]))
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICK


def cpu_seconds(pids: Mapping[str, int], reading: Reading | None = None) -> dict[str, float]:
    """The CPU seconds of each named process."""
    now = reading or read()
    return {name: now.cpu_seconds(pid) for name, pid in pids.items()}


def differences(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What was added to each between two readings."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def living(pids: Iterable[int]) -> bool:
    """True when every one of them exists."""
    return all((PROC / str(pid)).exists() for pid in pids)


def _text(pid: int, name: str) -> str:
    try:
        return (PROC / str(pid) / name).read_text(errors="replace")
    except OSError:
        return ""
