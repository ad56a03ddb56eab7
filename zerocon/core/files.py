"""Open untrusted files: regular files only, without blocking."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; OSError for anything else (a pipe, a device, a folder).

    A plain `open` of a named pipe blocks until something writes to it.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - Path.open has no opener
    kind = kind_of(os.fstat(file.fileno()).st_mode)
    if kind:
        file.close()
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
    return file


def kind_of(mode: int) -> str:
    """The kind of file in words; "" for a regular file."""
    return next((words for matches, words in KINDS if matches(mode)), "")


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
