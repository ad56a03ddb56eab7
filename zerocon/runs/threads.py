"""The processor threads of a run: chosen when it begins, and kept when it continues.

A model's last bits depend on the number of threads, so a continued run has the number that it
began with, as long as `runner.threads` and the number of its processes stay the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from zerocon.config.settings import RunnerSettings, RunSettings
from zerocon.core.threads import Choice, choose
from zerocon.ledger.atomic import write_atomic

FILE = "threads.json"
WITHOUT_GPU = 2  # workers, if `auto`


def chosen(settings: RunSettings, processes: int | None = None) -> Choice:
    """The threads of each of the run's processes on this machine."""
    share = _processes(settings.runner) if processes is None else processes
    small = bool(getattr(settings.backbone, "small", False))
    return choose(settings.runner.threads, share, small=small)


def threads_of(settings: RunSettings) -> Choice:
    """The run's number of threads: that of its first session, or else chosen now and stored."""
    found, runner, directory = chosen(settings), settings.runner, settings.directory
    given = {"asked": runner.threads, "processes": _processes(runner), "cores": found.cores}
    file = directory / FILE
    before = _read(file, given)
    if before is not None:
        why = "as when the run began" if before != found.threads else found.why
        return Choice(before, found.cores, why)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(given | {"threads": found.threads}).encode() + b"\n")
    return found


def use(threads: int) -> None:
    torch.set_num_threads(threads)


def _processes(runner: RunnerSettings) -> int:
    return workers_of(runner) if runner.executor == "processes" else 1


def workers_of(runner: RunnerSettings) -> int:
    """How many processes or actors share the run."""
    if runner.workers != "auto":
        return runner.workers
    return torch.cuda.device_count() or WITHOUT_GPU


def _read(file: Path, given: dict[str, Any]) -> int | None:
    try:
        said: Any = json.loads(file.read_bytes())
        same = all(said[name] == value for name, value in given.items())
        return max(1, int(said["threads"])) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
