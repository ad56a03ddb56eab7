"""Ctrl-C before a command has begun, and after."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from zerocon.core import interrupt


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def ended_by_ctrl_c() -> int:
    """The exit status of a fork that gets Ctrl-C; 1 if that raises an error that may be caught."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.raise_signal(signal.SIGINT)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_it_ends_at_once_or_raises() -> None:
    interrupt.end_at_once()
    assert ended_by_ctrl_c() == 130
    interrupt.raise_again()
    assert ended_by_ctrl_c() == 1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_it_says_how_to_go_on(capfd: pytest.CaptureFixture[str]) -> None:
    interrupt.end_at_once()
    child = os.fork()
    if child == 0:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    assert "stopped before it began; the same command continues" in capfd.readouterr().err


def test_other_threads_leave_it_alone() -> None:
    """Python lets only the main thread choose what a signal does."""
    failed: list[BaseException] = []

    def both() -> None:
        try:
            interrupt.end_at_once()
            interrupt.raise_again()
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=both)
    thread.start()
    thread.join()
    assert not failed
