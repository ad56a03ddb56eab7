"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

PARTIAL = ".partial"


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one.

    Data that comes in pieces is never in memory as a whole.
    """
    partial = path.with_name(f".{uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()
    _sync_directory(path.parent)


def sweep(directory: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes left half written, in the directory and its subfolders."""
    before = time.time() - older_than
    for partial in [*directory.glob(f".*{PARTIAL}"), *directory.glob(f"*/.*{PARTIAL}")]:
        with suppress(OSError):
            if partial.stat().st_mtime <= before:
                partial.unlink()


def _sync_directory(directory: Path) -> None:
    """The rename itself is only durable once the directory is."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
