"""Digests of the code that affects a run's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zerocon.core.registry import sources_of
from zerocon.core.source_code import PACKAGE, digest_of_files

# The packages whose code affects a run's numbers, and single files elsewhere.
ROOMS = ("core", "backbones", "directions", "inversions", "losses", "methods", "datasets",
         "metrics", "shapes")  # fmt: skip
FILES = ("runs/worker.py", "runs/inverting.py", "runs/batches.py")


@cache
def code_digest() -> str:
    """The digest of all source files of the package that affect a run's numbers."""
    rooms = (file for room in ROOMS for file in (PACKAGE / room).rglob("*.py"))
    return digest_of_files(sorted((*rooms, *(PACKAGE / name for name in FILES))))


def code_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """The digests of the package and of the user's own source files that a config names."""
    own = {_short(file): digest_of_files([file]) for file in sources_of(config)}
    return {PACKAGE.name: code_digest()} | own


def _short(file: Path) -> str:
    """The file's path, relative to the current folder if it is inside."""
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)
