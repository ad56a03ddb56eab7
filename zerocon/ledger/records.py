"""A run's records on disk: one line of JSON per case, appended atomically.

The rules of `records.jsonl`:

- A line, or a batch of lines, is appended in one write under a lock, and is on the disk before
  `append` returns. Several processes, and several threads of one process, may append to the
  same file.
- A case may have several lines; the last one counts. A further line is only written for a case
  to be done again: it failed and failed cases are retried, or its picture is gone. Anything
  else is refused as a duplicate.
- A process killed while writing leaves a torn last line. Opening the file for writing cuts
  it off and reports it. Any other damage is an error that names the line.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import stat
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from PIL import Image

from zerocon.core.records import Record, RecordError
from zerocon.core.text import printable
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.locks import flock_holder, wait_until

FILE_NAME = "records.jsonl"
IMAGES = "images"
_PNG_END = b"IEND\xaeB`\x82"  # every whole PNG file ends with this chunk
_LONGEST_NAME = 150  # file systems stop at 255 bytes

log = logging.getLogger(__name__)


class DuplicateError(RecordError):
    """The case has a record already."""


@contextmanager
def in_words(path: Path, action: str) -> Generator[None]:
    """Turn an OSError into a RecordError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecordError(f"{path} can't be {action}: {reason}") from error


def read_records(directory: Path) -> list[Record]:
    """The last record of each case, in the order of their first lines. Read-only.

    A torn last line, which a running or killed process may leave, is ignored.
    """
    path = directory / FILE_NAME
    if not path.exists():
        raise RecordError(f"{path} does not exist; is {directory} a run's directory?")
    with in_words(path, "read"):
        _check_file(path, path.stat())  # reading a named pipe would block forever
        data = path.read_bytes()
    return list(_by_case(_parse(path, data, 1)[0]).values())


def done_cases(directory: Path, records: Sequence[Record], *, retry_failed: bool) -> frozenset[str]:
    """The cases with nothing left to do. Read-only, so it works on a read-only disk."""
    again = verify_images(directory, records).keys()
    kept = [r for r in records if r.case not in again and (r.ok or not retry_failed)]
    return frozenset(record.case for record in kept)


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RecordError(f"{path} is no ordinary file; move it away and run the command again")


def _by_case(records: Sequence[Record]) -> dict[str, Record]:
    return {record.case: record for record in records}


def _parse(path: Path, data: bytes, first_line: int) -> tuple[list[Record], bytes]:
    """The complete lines as records, and the bytes after the last line break."""
    *lines, rest = data.split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines, first_line):
        try:
            records.append(Record.from_line(line))
        except (RecordError, ValueError, RecursionError) as error:
            raise RecordError(f"{path}, line {number}: {error}") from error
    return records, rest


class RecordLog:
    """The records of one run, open for writing. Any thread may use it, one at a time.

    The file's lock keeps other processes out, but threads share it (they use the same
    descriptor), so every operation also holds this object's own lock.
    """

    def __init__(self, directory: Path, retry_failed: bool = True) -> None:
        self.directory = directory
        self.path = directory / FILE_NAME
        self.repairs: list[str] = []  # descriptions of what was repaired
        self._records: dict[str, Record] = {}
        self._retry: set[str] = set()
        self._read_to, self._lines = 0, 0
        self._turn = threading.RLock()
        self._opened, self._closing = False, False
        with in_words(directory, "made"):
            directory.mkdir(parents=True, exist_ok=True)
        with in_words(self.path, "opened for writing"):
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _check_file(self.path, os.fstat(self._file))
            with self._locked():
                self._catch_up()
        except BaseException:
            self.close()
            raise
        self._retry = self._worth_another_try(retry_failed)
        self._opened = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A thread that is waiting for its lock gets a RecordError."""
        self._closing = True
        with self._turn:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def records(self) -> list[Record]:
        """The last record of each case."""
        with self._turn:
            return list(self._records.values())

    def done_ids(self) -> frozenset[str]:
        """The cases with nothing left to do."""
        with self._turn:
            return frozenset(self._records.keys() - self._retry)

    def refresh(self) -> None:
        """Read what other processes have added."""
        with self._locked():
            self._catch_up()

    def append(self, record: Record) -> None:
        """Add one line durably. The record's picture must have been stored before."""
        self.append_all([record])

    def append_all(self, records: Sequence[Record]) -> None:
        """Add the lines of a batch, all of them or none."""
        with self._locked():
            self._catch_up()
            done = self.done_ids()
            for record in records:
                if record.case in done:
                    raise DuplicateError(f"{self.path}: case {record.case!r} has a record already")
            self._write(b"".join(record.to_line() for record in records))
            self._lines += len(records)
            for record in records:
                self._take(record)

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Lock the log against other threads and the file against other processes."""
        with self._turn:
            wait_until(self._lock_once, self._waiting, log.warning)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock_once(self) -> bool:
        if self._closing:
            raise RecordError(f"{self.path} was closed before everything was written")
        with in_words(self.path, "locked"), suppress(BlockingIOError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def _waiting(self) -> str:
        return f"{self.path} is locked by {flock_holder(self._file)}; waiting until it is free"

    def _write(self, lines: bytes) -> None:
        """Write all lines or none: a partial write (disk full) is undone."""
        written = 0
        with in_words(self.path, "written"):
            try:
                written = os.write(self._file, lines)
            finally:
                if written != len(lines):
                    os.ftruncate(self._file, self._read_to)
            if written != len(lines):
                raise RecordError(
                    f"{self.path}: only {written} of {len(lines)} bytes fitted; disk full?"
                )
            os.fsync(self._file)
        self._read_to += written

    def _catch_up(self) -> None:
        """Read what any process has added since the last read."""
        with in_words(self.path, "read"):
            size = os.fstat(self._file).st_size
            if size < self._read_to:
                raise RecordError(f"{self.path} became shorter while it was open")
            data = _read_fully(self._file, self._read_to, size)
        records, rest = _parse(self.path, data, self._lines + 1)
        for record in records:
            self._take(record)
        self._lines += len(records)
        self._read_to = size - len(rest)
        if rest:
            self._cut(rest)

    def _take(self, record: Record) -> None:
        self._records[record.case] = record
        self._retry.discard(record.case)

    def _cut(self, rest: bytes) -> None:
        """Cut off an incomplete line; we hold the lock, so no other process will complete it."""
        with in_words(self.path, "written"):
            os.ftruncate(self._file, self._read_to)
            os.fsync(self._file)
        message = f"{self.path}, line {self._lines + 1}: cut off a torn line of {len(rest)} bytes"
        self.repairs.append(message)
        if self._opened:  # repairs made on opening are reported by the caller
            log.warning(message)

    def _worth_another_try(self, retry_failed: bool) -> set[str]:
        failed = {record.case for record in self.records() if not record.ok}
        broken = verify_images(self.directory, self.records())
        for case, problem in broken.items():
            self.repairs.append(f"case {case!r} will run again: {problem}")
        return (failed if retry_failed else set()) | broken.keys()


def _read_fully(file: int, start: int, end: int) -> bytes:
    parts: list[bytes] = []
    while start < end:
        part = os.pread(file, end - start, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def save_image(directory: Path, case_id: str, picture: Image.Image) -> tuple[str, str]:
    """Write a case's picture atomically; return its path in the run's directory and its SHA-256."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = buffer.getvalue()
    name = f"{IMAGES}/{file_name(case_id)}.png"
    with in_words(directory / name, "written"):
        (directory / IMAGES).mkdir(parents=True, exist_ok=True)
        write_atomic(directory / name, data)
    return name, hashlib.sha256(data).hexdigest()


def file_name(case_id: str) -> str:
    """A file name for a case's id: unique, without separators, not too long."""
    name = quote(case_id, safe=" ()[]+,=@", errors="backslashreplace")
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(case_id.encode(errors="backslashreplace")).hexdigest()[:16]
    return f"{name[:_LONGEST_NAME]}-{digest}"


def verify_images(directory: Path, records: Sequence[Record]) -> dict[str, str]:
    """Check quickly that each picture exists and is complete: {case: what is wrong}."""
    problems = {record.case: _quick_problem(directory, record) for record in records}
    return {case: problem for case, problem in problems.items() if problem}


def _quick_problem(directory: Path, record: Record) -> str:
    if record.image is None:
        return ""
    path = directory / record.image
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return f"{record.image} is no ordinary file"
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_PNG_END)))
            whole = file.read() == _PNG_END
    except OSError as error:
        return f"{printable(record.image)} can't be read ({error.strerror})"
    return "" if whole else f"{printable(record.image)} is not a whole PNG file"


def verify_checksums(directory: Path, records: Sequence[Record]) -> dict[str, str]:
    """Check by checksum that each picture is the one recorded: {case: what is wrong}."""
    problems = verify_images(directory, records)
    for record in records:
        if record.image is None or record.case in problems:
            continue
        digest = hashlib.sha256((directory / record.image).read_bytes()).hexdigest()
        if digest != record.sha256:
            problems[record.case] = f"{printable(record.image)} differs from the picture recorded"
    return problems
