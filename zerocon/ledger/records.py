"""What is known about each edited case: one line of JSON per case, appended whole.

The rules of `records.jsonl`:

- A line, or a batch of lines, is one write to the end of the file, under a lock, and on the
  disk before `append` returns. Several processes may append to one file.
- A case may have several lines; the last one counts. A further line is only ever written
  for a case that is worth another try: it failed and failed cases are retried, or its
  picture is gone. Anything else is refused as a duplicate.
- A process killed while writing leaves a torn last line. Opening the file for writing cuts
  it off and says so. Any other damage is an error that names the line.
- Measures that are not numbers have no JSON literal: nan is written null, infinity "inf".
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import math
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NoReturn, Self
from urllib.parse import quote

from PIL import Image

from zerocon.core.text import printable
from zerocon.ledger.atomic import write_atomic

SCHEMA = 1
FILE_NAME = "records.jsonl"
IMAGES = "images"
STATUSES = ("ok", "failed")
_PNG_END = b"IEND\xaeB`\x82"  # every whole PNG file ends with this chunk
_LONGEST_NAME = 150  # file systems stop at 255 bytes

log = logging.getLogger(__name__)


class RecordError(Exception):
    """The records can't be read or written. The message names the file and the line."""


class DuplicateError(RecordError):
    """The case has a record already."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything known about one case of one run."""

    schema: int = SCHEMA
    case: str
    status: str  # "ok" or "failed"
    error: str | None = None  # why it failed
    edit_type: str = ""
    edit_name: str = ""
    source_prompt: str = ""
    target_prompt: str = ""
    instruction: str = ""
    image: str | None = None  # path in the run's directory
    sha256: str | None = None  # of that file
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = _inconsistency(self)
        if problem:
            raise RecordError(f"record of case {self.case!r}: {problem}")

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def to_line(self) -> bytes:
        content = asdict(self) | {"metrics": {k: _to_json(v) for k, v in self.metrics.items()}}
        return json.dumps(content, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        content = json.loads(line, parse_constant=_not_json)
        if not isinstance(content, dict):
            raise RecordError("it is not a JSON object")
        return cls(**_checked(content))


def _inconsistency(record: Record) -> str:
    """What does not fit together in it, or nothing."""
    rules = {
        f"schema is {record.schema}; this version reads {SCHEMA}": record.schema == SCHEMA,
        "the case id is empty": record.case != "",
        f"status is {record.status!r}; it must be 'ok' or 'failed'": record.status in STATUSES,
        "a failed case has an error, an ok one has none": record.ok == (not record.error),
        "image and sha256 come together": (record.image is None) == (record.sha256 is None),
        f"image {record.image!r} leaves the run's directory": _stays_inside(record.image),
        f"seconds is {record.seconds}; it must be at least 0": 0 <= record.seconds < math.inf,
    }
    return "; ".join(problem for problem, kept in rules.items() if not kept)


def _stays_inside(path: str | None) -> bool:
    if path is None:
        return True
    parts = PurePosixPath(path)
    return bool(parts.parts) and not parts.is_absolute() and ".." not in parts.parts


def _to_json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(value)


def _from_json(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if value in ("inf", "-inf"):
        return float(str(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise RecordError(f'metric {name!r} is {value!r}; it must be a number, null or "inf"')


def _not_json(literal: str) -> NoReturn:
    raise RecordError(f"{literal} is not a JSON number")


_TYPES: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "error": (str, type(None)),
    "image": (str, type(None)),
    "sha256": (str, type(None)),
    "metrics": (dict,),
    "seconds": (int, float),
    "notes": (list,),
}


def _checked(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record, each there and of its type; no others."""
    names = {item.name for item in fields(Record)}
    if content.keys() != names:
        missing, unknown = sorted(names - content.keys()), sorted(content.keys() - names)
        raise RecordError(f"missing fields {missing}, unknown fields {unknown}")
    for name, value in content.items():
        allowed = _TYPES.get(name, (str,))
        if not isinstance(value, allowed) or isinstance(value, bool):
            wanted = " or ".join(kind.__name__ for kind in allowed)
            raise RecordError(f"{name} is {value!r}; it must be {wanted}")
    if not all(isinstance(note, str) for note in content["notes"]):
        raise RecordError("notes must be strings")
    metrics = {name: _from_json(name, value) for name, value in content["metrics"].items()}
    return content | {"metrics": metrics, "notes": tuple(content["notes"])}


def read_records(directory: Path) -> list[Record]:
    """The last record of each case, in the order the cases first came. Changes nothing.

    A torn last line, of a run that is being written or was killed, is left out.
    """
    path = directory / FILE_NAME
    if not path.exists():
        raise RecordError(f"{path} does not exist; is {directory} a run's directory?")
    return list(_by_case(_parse(path, path.read_bytes(), 1)[0]).values())


def _by_case(records: Sequence[Record]) -> dict[str, Record]:
    return {record.case: record for record in records}


def _parse(path: Path, data: bytes, first_line: int) -> tuple[list[Record], bytes]:
    """The whole lines as records, and what follows the last line's end."""
    *lines, rest = data.split(b"\n")
    records: list[Record] = []
    for number, line in enumerate(lines, first_line):
        try:
            records.append(Record.from_line(line))
        except (RecordError, ValueError, RecursionError) as error:
            raise RecordError(f"{path}, line {number}: {error}") from error
    return records, rest


class RecordLog:
    """The records of one run, open for writing."""

    def __init__(self, directory: Path, retry_failed: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.path = directory / FILE_NAME
        self.repairs: list[str] = []  # what was mended, in words
        self._records: dict[str, Record] = {}
        self._retry: set[str] = set()
        self._read_to, self._lines = 0, 0
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            with self._locked():
                self._catch_up()
        except BaseException:
            self.close()
            raise
        self._retry = self._worth_another_try(retry_failed)

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
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def records(self) -> list[Record]:
        """The last record of each case."""
        return list(self._records.values())

    def done_ids(self) -> frozenset[str]:
        """The cases that need nothing more."""
        return frozenset(self._records.keys() - self._retry)

    def refresh(self) -> None:
        """Learn what others have added."""
        with self._locked():
            self._catch_up()

    def append(self, record: Record) -> None:
        """Add one line, whole and on the disk. The record's picture must be there before."""
        self.append_all([record])

    def append_all(self, records: Sequence[Record]) -> None:
        """Add the lines of a batch, all of them or none."""
        with self._locked():
            self._catch_up()
            for record in records:
                if record.case in self.done_ids():
                    raise DuplicateError(f"{self.path}: case {record.case!r} has a record already")
            self._write(b"".join(record.to_line() for record in records))
            self._lines += len(records)
            for record in records:
                self._take(record)

    @contextmanager
    def _locked(self) -> Generator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._read_to)
            raise RecordError(
                f"{self.path}: only {written} of {len(line)} bytes fitted; disk full?"
            )
        os.fsync(self._file)
        self._read_to += written

    def _catch_up(self) -> None:
        """Read what was added since the last look, by whomever."""
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
        """Nobody else is writing (we hold the lock), so this line will never be finished."""
        os.ftruncate(self._file, self._read_to)
        os.fsync(self._file)
        message = f"{self.path}, line {self._lines + 1}: cut off a torn line of {len(rest)} bytes"
        self.repairs.append(message)
        log.warning(message)

    def _worth_another_try(self, retry_failed: bool) -> set[str]:
        failed = {record.case for record in self.records() if not record.ok}
        broken = verify_images(self.directory, self.records())
        for case, problem in broken.items():
            self.repairs.append(f"case {case!r} will run again: {problem}")
            log.warning(self.repairs[-1])
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
    """Write a case's picture, whole or not at all: its path in the run's directory, its sha256."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = buffer.getvalue()
    name = f"{IMAGES}/{file_name(case_id)}.png"
    (directory / IMAGES).mkdir(parents=True, exist_ok=True)
    write_atomic(directory / name, data)
    return name, hashlib.sha256(data).hexdigest()


def file_name(case_id: str) -> str:
    """The id as a file's name: no separators, never too long, different ids differ."""
    name = quote(case_id, safe=" ()[]+,=@", errors="backslashreplace")
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(case_id.encode(errors="backslashreplace")).hexdigest()[:16]
    return f"{name[:_LONGEST_NAME]}-{digest}"


def verify_images(directory: Path, records: Sequence[Record]) -> dict[str, str]:
    """A quick look: is each picture there, and whole to its end? Case -> what is wrong."""
    problems = {record.case: _quick_problem(directory, record) for record in records}
    return {case: problem for case, problem in problems.items() if problem}


def _quick_problem(directory: Path, record: Record) -> str:
    if record.image is None:
        return ""
    try:
        with (directory / record.image).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_PNG_END)))
            whole = file.read() == _PNG_END
    except OSError as error:
        return f"{printable(record.image)} can't be read ({error.strerror})"
    return "" if whole else f"{printable(record.image)} is not a whole PNG file"


def verify_checksums(directory: Path, records: Sequence[Record]) -> dict[str, str]:
    """The thorough look: is each picture byte for byte the one recorded?"""
    problems = verify_images(directory, records)
    for record in records:
        if record.image is None or record.case in problems:
            continue
        digest = hashlib.sha256((directory / record.image).read_bytes()).hexdigest()
        if digest != record.sha256:
            problems[record.case] = f"{printable(record.image)} differs from the picture recorded"
    return problems
