"""Wait for locks that another process holds, interruptibly and with a message."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

SAY_AFTER = 3.0  # seconds of waiting after which the user is told
_LONGEST_NAP = 0.05


def wait_until(
    try_once: Callable[[], bool], waiting_for: Callable[[], str], say: Callable[[str], None]
) -> None:
    """Call `try_once` until it returns True; after a while `say` once what is being waited for.

    It polls with short sleeps, so that Ctrl-C and a closed file end the wait.
    """
    started, said, nap = time.monotonic(), False, 0.001
    while not try_once():
        if not said and time.monotonic() - started > SAY_AFTER:
            say(waiting_for())
            said = True
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)


def flock_holder(file: int) -> str:
    """Which process of this machine holds a `flock` on the open file, in words."""
    status = os.fstat(file)
    ours = f":{status.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:  # no Linux
        return "another process"
    # A line has: number, kind of lock, ADVISORY, WRITE, process, device:inode, start, end.
    held = [line.split() for line in lines if "FLOCK" in line and "->" not in line]
    pids = [words[4] for words in held if words[5].endswith(ours) and words[4] != "-1"]
    return f"process {pids[0]}" if pids else "another process"
