"""Cut a run's cases into chunks, and let processes claim them.

Cases are cut into chunks by their position in the dataset, always in the same way. A run that
continues after a kill therefore has the same chunks, and its pictures come out the same.

A process that works on a chunk locks the chunk's positions in `claims`, a file in the run's
directory. In this way processes that share the directory divide the chunks among themselves,
and the locks of a process that dies are released. The file's text lists the processes at work,
for messages only.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import struct
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from zerocon.core.records import RecordError
from zerocon.ledger.atomic import sweep
from zerocon.ledger.locks import wait_until
from zerocon.ledger.records import RecordLog, in_words

FILE = "claims"
AT_WORK = 2**40  # beyond all cases' positions: every process at work shares this lock
_LINUX = sys.platform.startswith("linux")
_FLOCK = struct.Struct("@hhqqi4x")  # Linux's `struct flock`: type, whence, start, length, process
_MOST_REGISTERED = 2**20  # bytes of the file's text that are read
# The claims that this process has open. Its locks on a file end when it closes *any* descriptor
# of that file, so it must not open the file again to look at a run that it works on.
_OURS: dict[Path, int] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """Cases between two positions, edited together, and which of them have no record yet.

    A partly recorded chunk is computed again as a whole: a picture's last bits may depend on the
    other cases in its batch, and must not depend on when a run was killed.
    """

    start: int
    stop: int
    case_ids: tuple[str, ...]
    left: frozenset[str]


class Claims:
    """Locks on positions in the dataset; they end when the process ends, if not before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        path = directory / FILE
        _check_file(path)
        with in_words(path, "opened for writing"):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        if self._alone():
            self._forget_the_dead()
        _OURS[directory.resolve()] = self._file
        wait_until(self._join, lambda: f"{path} is locked by {self._who(AT_WORK, 1)}", log.warning)
        with suppress(OSError):  # only messages need it
            os.write(self._file, f"{os.getpid()} {platform.node()}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._alone():  # the last process cleans up, also after others that were killed
            sweep(self._directory)
        _OURS.pop(self._directory.resolve(), None)
        os.close(self._file)

    def take(self, start: int, stop: int) -> bool:
        """Claim the positions; return False if another process holds some of them."""
        return _try_lock(self._file, fcntl.LOCK_EX, start, stop - start)

    def release(self, start: int, stop: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, stop - start, start)

    def holder(self, start: int, stop: int) -> str:
        """Who holds some of the positions, for example "process 12 on node7"."""
        return self._who(start, stop - start)

    def _alone(self) -> bool:
        """Return whether no other process is at work, and keep others out until `_join`."""
        return _try_lock(self._file, fcntl.LOCK_EX, AT_WORK, 1)

    def _join(self) -> bool:
        return _try_lock(self._file, fcntl.LOCK_SH, AT_WORK, 1)

    def _forget_the_dead(self) -> None:
        """Remove half-written files and the list of processes, since no other is at work."""
        sweep(self._directory)
        os.ftruncate(self._file, 0)

    def _who(self, start: int, length: int) -> str:
        pid = _blocker(self._file, start, length) if _LINUX else None
        if not pid:
            return "another process"
        os.lseek(self._file, 0, os.SEEK_SET)
        lines = os.read(self._file, _MOST_REGISTERED).decode(errors="replace").splitlines()
        hosts = [line.partition(" ")[2] for line in lines if line.startswith(f"{pid} ")]
        return f"process {pid} on {hosts[-1]}" if hosts else f"process {pid}"


def is_claimed(directory: Path) -> bool:
    """Return whether another process works on any of the run's cases; leaves our locks alone."""
    ours = _OURS.get(directory.resolve())
    if ours is not None:
        return bool(_LINUX and _blocker(ours, 0, 0) is not None)
    try:
        file = os.open(directory / FILE, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _blocker(file, 0, 0) is not None if _LINUX else not _try_lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _check_file(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise RecordError(f"{path} is no ordinary file; move it away and run the command again")


def _try_lock(file: int, kind: int, start: int = 0, length: int = 0) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB, length, start)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _blocker(file: int, start: int, length: int) -> int | None:
    """The process that holds a lock on the range (0 if the system does not say which), or None."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        answer = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except OSError:
        return None
    return None if answer[0] == fcntl.F_UNLCK else max(0, answer[4])


def cuts(places: range, size: int) -> list[tuple[int, int]]:
    return [(i, min(i + size, places.stop)) for i in range(places.start, places.stop, size)]


@dataclass(frozen=True)
class Waiting:
    """Other processes work on all cases that are left; ask again after a moment."""

    start: int
    stop: int  # start and stop: the first positions to wait for


def chunks_left(
    log: RecordLog, claims: Claims, ids: Sequence[str], places: range, size: int
) -> Generator[Chunk | Waiting]:
    """Yield claimed chunks until every case in `places` is recorded, by any process."""
    waiting = cuts(places, size)
    while waiting:
        others: list[tuple[int, int]] = []
        for start, stop in waiting:
            if not claims.take(start, stop):
                others.append((start, stop))
                continue
            log.refresh()
            done = log.done_ids()
            chunk = Chunk(start, stop, tuple(ids[start:stop]), frozenset(ids[start:stop]) - done)
            if chunk.left:
                yield chunk
            else:
                claims.release(start, stop)
        waiting = others
        if waiting:
            yield Waiting(*waiting[0])
