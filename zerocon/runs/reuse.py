"""Reuse the records of a run that differs only in its name.

Ablations share a baseline, under a different name in each.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zerocon.core.checks import ConfigError
from zerocon.core.records import RecordError
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import FILE_NAME
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.results import LATER, is_complete


def same_run(run: RunDirectory, now: Origin) -> RunDirectory | None:
    """A finished run with the same inputs, models and code as this one, which has not begun."""
    if run.begun:
        return None
    content = run.name.rpartition("-")[2]
    others = sorted(run.path.parent.glob(f"*-{content}"))
    return next((other for path in others if (other := _finished(path, now)) is not None), None)


def take_records(other: RunDirectory, run: RunDirectory) -> None:
    """Copy the pictures, then all records at once, so that an interruption leaves no records."""
    run.pictures.mkdir(exist_ok=True)
    for picture in other.pictures.glob("*.png"):
        _link(picture, run.pictures / picture.name)
    write_atomic(run.path / FILE_NAME, (other.path / FILE_NAME).read_bytes())


def _finished(path: Path, now: Origin) -> RunDirectory | None:
    """The run at `path`, if its records are those that this run would make."""
    other = RunDirectory(path)
    try:
        return other if _has_the_same_records(other, now) else None
    except (ConfigError, RecordError, OSError):
        return None


def _has_the_same_records(other: RunDirectory, now: Origin) -> bool:
    same = other.begun and all(
        getattr(other.origin, what) == getattr(now, what)
        for what in ("case_ids", "backbone", "dataset", "judges", "inputs")
    )
    if not same or not now.inputs or other.origin.mixed:
        return False
    mixed_code = any(LATER in note for record in other.records() for note in record.notes)
    whole = other.inputs is not None and is_complete(other, retry_failed=True)
    return whole and not mixed_code and not other.damaged_pictures(other.records(), thoroughly=True)


def _link(source: Path, target: Path) -> None:
    """Hard-link the file if possible; safe, since pictures are replaced, never changed in place."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
