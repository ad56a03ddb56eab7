"""The same settings under another name are the same run: its records are taken, not made again.

Ablations share their baseline, and each calls it by its own name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from zerocon.core.checks import ConfigError
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import FILE_NAME, RecordError
from zerocon.runs.results import code_differs, is_complete

IMAGES = "images"


def twin_of(directory: Path, now: Origin) -> Path | None:
    """A finished run that differs from this one, which has not begun, by nothing but its name."""
    if Origin.read(directory) is not None:
        return None
    content = directory.name.rpartition("-")[2]
    found = sorted(directory.parent.glob(f"*-{content}"))
    return next((other for other in found if _is_the_same(other, now)), None)


def take_records(twin: Path, directory: Path) -> None:
    """The pictures, then all records at once: cut off before them, nothing was taken."""
    (directory / IMAGES).mkdir(exist_ok=True)
    for picture in (twin / IMAGES).glob("*.png"):
        _link(picture, directory / IMAGES / picture.name)
    write_atomic(directory / FILE_NAME, (twin / FILE_NAME).read_bytes())


def _is_the_same(other: Path, now: Origin) -> bool:
    """Made by the same code, models and pictures, without a failed case?"""
    try:
        origin = Origin.read(other)
        if origin is None or code_differs(origin):
            return False
        same = all(
            getattr(origin, what) == getattr(now, what)
            for what in ("case_ids", "backbone", "dataset", "judges")
        )
        return same and is_complete(other, retry_failed=True)
    except (ConfigError, RecordError):
        return False


def _link(source: Path, target: Path) -> None:
    """One file for both runs where the file system can: a picture is replaced, never changed."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
