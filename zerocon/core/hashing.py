"""Digests of files, and a store of digests, so that unchanged files are read once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, cast

from zerocon.core.files import open_regular

FileHasher = Callable[[Path], str]  # file -> digest of its content; OSError if it can't be read

SETTLED = 2 * 10**9  # nanoseconds; a more recently changed file could change again unnoticed
MOST_BYTES = 8 * 2**20  # of a store, for about 30,000 files

State = tuple[int, int, int, int, int]


def file_digest(path: Path) -> str:
    """The SHA-256 of a regular file's content."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(content: Any) -> str:
    """The SHA-256 of plain values as JSON; values without a JSON form as their text."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


class RememberedDigests:
    """A `FileHasher`: `file_digest` with a store of known digests.

    A stored digest is valid while the file's size, times (of content and metadata, in
    nanoseconds), inode and device are the same. Files changed in the last two seconds are hashed
    each time and not stored, as they could change again within one tick of the clock.

    The store is a text file with one line per digest, each with a checksum. Several processes may
    use it at once, and any may be killed: incomplete lines and stores that are damaged or can't be
    read or written are ignored. Beyond `most_bytes`, the older half is dropped.
    """

    def __init__(self, store: Path, most_bytes: int = MOST_BYTES) -> None:
        self.store, self.most_bytes = store, most_bytes
        self._known: dict[str, tuple[State, str]] = {}
        self._bytes = -1  # of the store; -1: not read yet
        self._lock = Lock()

    def __call__(self, path: Path) -> str:
        """The digest of a file's content; OSError if the file can't be read."""
        self._load()
        name = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps `..`
        status = os.stat(name)  # noqa: PTH116 - half the time of Path.stat
        state, known = _state(status), self._known.get(name)
        if known is not None and known[0] == state:
            return known[1]
        begun = time.time_ns()
        digest = file_digest(path)
        if _settled(status, begun) and _state(path.stat()) == state:
            self._remember(name, state, digest)
        return digest

    def _load(self) -> None:
        with self._lock:
            if self._bytes >= 0:
                return
            data = _last_bytes(self.store, self.most_bytes)
            self._bytes = len(data)
            for name, state, digest in _entries(data):
                self._known.pop(
                    name, None
                )  # moves the name to the end; the oldest are dropped first
                self._known[name] = (state, digest)

    def _remember(self, name: str, state: State, digest: str) -> None:
        line = _line(name, state, digest)
        with self._lock:
            self._known.pop(name, None)
            self._known[name] = (state, digest)
            self._bytes += len(line)
            with suppress(OSError):
                if self._bytes > self.most_bytes:
                    self._shorten()
                else:
                    _append(self.store, line)

    def _shorten(self) -> None:
        """Replace the store by its newer half."""
        newest = list(self._known.items())[len(self._known) // 2 :]
        self._known = dict(newest)
        data = b"".join(_line(name, *value) for name, value in newest)
        self._bytes = len(data)
        _replace(self.store, data)


def _state(status: os.stat_result) -> State:
    """Attributes of which one changes whenever the content does."""
    return (
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
        status.st_dev,
    )


def _settled(status: os.stat_result, now: int) -> bool:
    return max(status.st_mtime_ns, status.st_ctime_ns) + SETTLED <= now


def _line(name: str, state: State, digest: str) -> bytes:
    """One entry. The line break before it ends a line that a killed process left incomplete."""
    text = json.dumps([name, *state, digest]).encode()
    return b"\n%08x %b\n" % (zlib.crc32(text), text)


def _entries(data: bytes) -> Iterator[tuple[str, State, str]]:
    for line in data.splitlines():
        checksum, _, text = line.partition(b" ")
        if text and checksum == b"%08x" % zlib.crc32(text):
            with suppress(ValueError, TypeError):
                name, *state, digest = cast("list[Any]", json.loads(text))
                yield str(name), cast("State", tuple(state)), str(digest)


def _last_bytes(store: Path, most: int) -> bytes:
    try:
        with open_regular(store) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most)
    except OSError:
        return b""


def _append(store: Path, line: bytes) -> None:
    """Add a line in a single write, so that lines of several processes do not mix."""
    store.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(store, flags, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def _replace(store: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=store.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(store)
    finally:
        Path(name).unlink(missing_ok=True)
