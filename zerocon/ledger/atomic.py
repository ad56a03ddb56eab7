"""Write files atomically: they are complete or not there."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

PARTIAL = ".partial"


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a temporary file, then rename it: a reader sees the old file or the new one.

    Data given in pieces is never held in memory as a whole.
    """
    partial = path.with_name(f".{uuid4().hex}{PARTIAL}")
    try:
        with _held(partial) as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()
    _sync_directory(path.parent)


def sweep(directory: Path, older_than: float = 0.0) -> None:
    """Remove files that killed processes left half written, here and one folder below."""
    before = time.time() - older_than
    for partial in [*directory.glob(f".*{PARTIAL}"), *directory.glob(f"*/.*{PARTIAL}")]:
        with suppress(OSError):
            if partial.stat().st_mtime <= before and not _is_held(partial):
                partial.unlink()


def _held(partial: Path) -> BinaryIO:
    """Open a new file whose lock says that its writer is alive."""
    while True:
        file = partial.open("wb")
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if partial.exists():  # not swept away before it was locked
            return file
        file.close()


def _is_held(partial: Path) -> bool:
    with partial.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _sync_directory(directory: Path) -> None:
    """Sync the directory, without which the rename is not durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
