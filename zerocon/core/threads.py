"""How many processor threads to compute with, and how threads wait for each other.

Two programs that each take every core slow each other far beyond their share, because OpenMP's
threads spin while they wait. So threads wait passively, and there are as many as cores are free.
This module never imports torch: the way of waiting must be set before that.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHORTEST = 0.5  # seconds over which other programs' use of the cores is measured
_CGROUP = Path("/sys/fs/cgroup/cpu.max")
_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # the fields of /proc/stat that count idle time: idle, iowait


def wait_politely() -> None:
    """Let idle threads sleep, unless the environment says how they wait. Call before torch."""
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def cores() -> int:
    """The cores that this process may use: its affinity, and a container's limit."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _CGROUP.read_text().split()
        if quota != "max":
            return max(1, min(allowed, round(int(quota) / int(period))))
    return allowed


@dataclass(frozen=True)
class Choice:
    """How many threads, of how many cores, and why."""

    threads: int
    cores: int
    why: str = ""

    def words(self) -> str:
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''} of {self.cores}"
        return f"{count} ({self.why})" if self.why else count


def choose(asked: int | str, share: int = 1, *, small: bool = False) -> Choice:
    """The number asked for, or for `auto` as many as cores are free, divided by `share` processes.

    For a `small` model `auto` is one thread: several wait longer for each other than they compute.
    `OMP_NUM_THREADS` in the environment is a choice, too.
    """
    found = cores()
    if asked != "auto":
        return Choice(int(asked), found, "runner.threads")
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told):
        return Choice(int(told), found, "OMP_NUM_THREADS")
    if small:
        return Choice(1, found, "the model is small")
    busy = BUSY.others()
    free = min(found, round(_online() - busy))
    threads = max(1, free // share)
    others = threads * share < found and busy >= SHORTEST
    return Choice(threads, found, f"other programs use {busy:.1f} cores" if others else "")


class Busy:
    """Measures how many cores other programs used since the last time it was asked."""

    def __init__(self) -> None:
        self._before, self._last = _reading(), 0.0

    def others(self) -> float:
        """In cores; 0 where the system does not say."""
        now = _reading()
        if now is None or self._before is None:
            return 0.0
        seconds = now[0] - self._before[0]
        if seconds >= SHORTEST:
            ours = now[2] - self._before[2]
            self._last = max(0.0, (now[1] - self._before[1] - ours) / seconds)
            self._before = now
        return self._last


def _reading() -> tuple[float, float, float] | None:
    """(the time, the seconds that all cores were busy, those that we kept them busy)"""
    try:
        fields = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    busy = sum(field for place, field in enumerate(fields) if place not in _IDLE)
    ours = os.times()
    spent = ours.user + ours.system + ours.children_user + ours.children_system
    return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), spent


def _online() -> int:
    return os.cpu_count() or 1


BUSY = Busy()  # from the command's start on
