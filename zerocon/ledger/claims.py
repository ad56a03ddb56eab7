"""Which cases are edited together, and by whom.

A run's cases are cut into chunks by their place in the dataset, always at the same places: a
run that was killed cuts them as before, so that every picture comes out as it would have.
Whoever works on a chunk holds a lock on its places in `claims`, a file in the run's directory.
Processes that share the directory so divide its chunks among them, and the lock of one that
dies is free for another.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from zerocon.ledger.atomic import sweep
from zerocon.ledger.records import RecordLog

FILE = "claims"
AT_WORK = 2**40  # a place that no case has: whoever works on the run holds it together


@dataclass(frozen=True)
class Chunk:
    """Neighbouring cases: `case_ids` are those still to be done between two places."""

    start: int
    stop: int
    case_ids: tuple[str, ...]


class Claims:
    """Locks on places of the dataset; they end with the process at the latest."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / FILE, os.O_RDWR | os.O_CREAT, 0o644)
        with suppress(OSError):  # others are at work: what is half written may be theirs
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, AT_WORK)
            sweep(directory)
        fcntl.lockf(self._file, fcntl.LOCK_SH, 1, AT_WORK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def take(self, start: int, stop: int) -> bool:
        """Is it ours now? Not while another process holds a part of it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, stop - start, start)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, start: int, stop: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, stop - start, start)


def cuts(places: range, size: int) -> list[tuple[int, int]]:
    return [(i, min(i + size, places.stop)) for i in range(places.start, places.stop, size)]


def chunks_left(
    log: RecordLog, claims: Claims, ids: Sequence[str], places: range, size: int
) -> Generator[Chunk | None]:
    """Claimed chunks until every case of `places` is recorded, by whomever.

    None says: others are at work on all that is left. Ask again after a moment.
    """
    waiting = cuts(places, size)
    while waiting:
        others: list[tuple[int, int]] = []
        for start, stop in waiting:
            if not claims.take(start, stop):
                others.append((start, stop))
                continue
            log.refresh()
            done = log.done_ids()
            left = tuple(case_id for case_id in ids[start:stop] if case_id not in done)
            if left:
                yield Chunk(start, stop, left)
            else:
                claims.release(start, stop)
        waiting = others
        if waiting:
            yield None
