"""Which code makes the numbers: a digest that changes when code that matters does."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
# The rooms whose code makes a run's numbers, and the files elsewhere that do.
ROOMS = ("core", "backbones", "directions", "inversions", "losses", "methods", "datasets",
         "metrics", "shapes")  # fmt: skip
FILES = ("runs/worker.py", "runs/inverting.py")


@cache
def code_digest() -> str:
    """Of every source file that has a part in a run's numbers."""
    rooms = (file for room in ROOMS for file in (PACKAGE / room).rglob("*.py"))
    return _digest(sorted((*rooms, *(PACKAGE / name for name in FILES))))


@cache
def code_of(*modules: str) -> str:
    """Of these modules' source files, and of all modules of ours that they take things from."""
    return _digest(Path(inspect.getfile(sys.modules[name])) for name in sorted(_closure(modules)))


def _closure(modules: Iterable[str]) -> set[str]:
    found, left = set[str](), set(modules)
    while left:
        name = left.pop()
        found.add(name)
        things = vars(sys.modules[name]).values()
        taken = {str(getattr(thing, "__module__", None)) for thing in things}
        left |= {m for m in taken if m.startswith("zerocon.") and m in sys.modules} - found
    return found


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
