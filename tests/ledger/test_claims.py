"""Claims: which process works on which cases, with messages and cleaning up."""

from __future__ import annotations

import os
import platform
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from zerocon.core.records import RecordError
from zerocon.ledger.claims import FILE, Claims, is_claimed

FORK = get_context("fork")


def _hold(directory: Path, line: Any) -> None:
    with Claims(directory) as claims:
        claims.take(4, 8)
        line.send(os.getpid())
        line.recv()


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another process that holds positions 4 to 7: (its id, the line that ends it)."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold, args=(tmp_path, theirs))
    process.start()
    yield ours.recv(), ours
    process.kill()
    process.join()


def test_the_holder_is_named(tmp_path: Path, other: Any) -> None:
    with Claims(tmp_path) as claims:
        assert claims.take(0, 4)
        assert not claims.take(4, 8)
        assert claims.holder(4, 8) == f"process {other[0]} on {platform.node()}"


def test_reading_claims_does_not_change_them(tmp_path: Path, other: Any) -> None:
    assert is_claimed(tmp_path)
    assert not is_claimed(tmp_path / "elsewhere")
    with Claims(tmp_path) as claims:
        assert claims.take(0, 4)
        assert is_claimed(tmp_path)
        assert not _taken_by_another(tmp_path, 0, 4)  # it is still ours after the look
    os.kill(other[0], signal.SIGKILL)


def test_a_run_that_only_we_work_on_is_not_claimed_by_others(tmp_path: Path) -> None:
    with Claims(tmp_path) as claims:
        claims.take(0, 4)
        assert not is_claimed(tmp_path)
    assert not is_claimed(tmp_path)


def _taken_by_another(directory: Path, start: int, stop: int) -> bool:
    with FORK.Pool(1) as pool:
        return pool.apply(_take, (directory, start, stop))


def _take(directory: Path, start: int, stop: int) -> bool:
    with Claims(directory) as claims:
        return claims.take(start, stop)


def test_claims_of_a_read_only_run_are_seen(tmp_path: Path, other: Any) -> None:
    (tmp_path / FILE).chmod(0o444)
    assert is_claimed(tmp_path)


def test_incomplete_files_are_removed_by_the_last_process(tmp_path: Path, other: Any) -> None:
    (tmp_path / "images").mkdir()
    leftovers = [tmp_path / ".a.partial", tmp_path / "images" / ".b.partial"]
    for file in leftovers:
        file.touch()
    with Claims(tmp_path):
        pass
    assert all(file.exists() for file in leftovers)  # they may be the other's
    os.kill(other[0], signal.SIGKILL)
    while is_claimed(tmp_path):
        pass
    with Claims(tmp_path):
        assert not any(file.exists() for file in leftovers)
        for file in leftovers:
            file.touch()  # of one that came later and was killed
    assert not any(file.exists() for file in leftovers)


def test_a_pipe_in_place_of_the_claims_is_an_error_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(RecordError, match="claims is no ordinary file"):
        Claims(tmp_path)
    assert not is_claimed(tmp_path)
