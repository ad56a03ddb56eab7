"""Let Ctrl-C end a command at once while it is still starting."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

INTERRUPTED = 130  # 128 and the signal's number, as shells report it


def end_at_once() -> None:
    """Let Ctrl-C end the process, even within imports that would catch KeyboardInterrupt."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, so that work can be finished."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("\nstopped before it began; the same command continues\n")
    sys.stderr.flush()
    os._exit(INTERRUPTED)
