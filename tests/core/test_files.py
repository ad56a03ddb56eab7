"""Files that other people made: only regular ones are opened, and nothing waits."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from zerocon.core.files import kind_of, open_regular


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"here")
    with open_regular(tmp_path / "a") as file:
        assert file.read() == b"here"


def test_anything_else_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A plain `open` of the pipe would wait here forever."""
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "named pipe"), (Path(os.devnull), "device")):
        before = len(list(Path("/dev/fd").iterdir()))
        with pytest.raises(OSError, match=f"it is a {kind}, not a file") as raised:
            open_regular(path)
        assert raised.value.filename == str(path)
        assert len(list(Path("/dev/fd").iterdir())) == before  # it was closed again
    with pytest.raises(OSError, match="directory"):
        open_regular(tmp_path)


def test_kinds_in_words(tmp_path: Path) -> None:
    there = socket.socket(socket.AF_UNIX)
    there.bind(str(tmp_path / "socket"))
    there.close()
    (tmp_path / "file").touch()
    kinds = {
        tmp_path: "a folder",
        tmp_path / "socket": "a socket",
        tmp_path / "file": "",
        Path(os.devnull): "a device",
    }
    assert {path: kind_of(path.stat().st_mode) for path in kinds} == kinds
    assert kind_of(stat.S_IFBLK) == "a device"
    assert kind_of(stat.S_IFIFO) == "a named pipe"
