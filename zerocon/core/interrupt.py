"""Ctrl-C while a command starts: nothing is at stake yet, so it ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130  # 128 and the signal's number, as shells report it


def end_at_once() -> None:
    """From now on Ctrl-C ends the process, even within imports that would swallow the error."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, as usual: there is something to finish."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("\nstopped before it began; the same command continues\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
