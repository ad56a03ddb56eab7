"""Which code makes the numbers: digests that change when that code does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zerocon.core.registry import sources_of
from zerocon.core.source_code import PACKAGE, digest_of_files

# The rooms whose code makes a run's numbers, and the files elsewhere that do.
ROOMS = ("core", "backbones", "directions", "inversions", "losses", "methods", "datasets",
         "metrics", "shapes")  # fmt: skip
FILES = ("runs/worker.py", "runs/inverting.py", "runs/batches.py")


@cache
def code_digest() -> str:
    """Of every source file of the package that has a part in a run's numbers."""
    rooms = (file for room in ROOMS for file in (PACKAGE / room).rglob("*.py"))
    return digest_of_files(sorted((*rooms, *(PACKAGE / name for name in FILES))))


def code_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Of the package, and of each source file of the user's own classes that a config names."""
    own = {_short(file): digest_of_files([file]) for file in sources_of(config)}
    return {PACKAGE.name: code_digest()} | own


def _short(file: Path) -> str:
    """The file's path from the current folder, if it is below."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)
