"""Digests of source files, and their imports, found by parsing."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def digest_of_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def code_of(*modules: str) -> str:
    """The digest of these imported modules' files and of all our modules that they use."""
    return digest_of_files(_file_of(name) for name in sorted(_used_by(modules)))


def _file_of(module: str) -> Path:
    return Path(inspect.getfile(sys.modules[module]))


def _used_by(modules: Iterable[str]) -> set[str]:
    """The modules, and those in the package or beside them whose functions or classes they use."""
    found, left = set[str](), set(modules)
    places = {PACKAGE, *(_file_of(name).parent for name in left)}
    while left:
        name = left.pop()
        found.add(name)
        used = {
            str(getattr(thing, "__module__", None)) for thing in vars(sys.modules[name]).values()
        }
        left |= {m for m in used - found if m in sys.modules and _lies_in(m, places)}
    return found


def _lies_in(module: str, places: set[Path]) -> bool:
    file = getattr(sys.modules[module], "__file__", None)
    return file is not None and any(place in Path(file).parents for place in places)


def with_imports(module: str, file: Path) -> set[Path]:
    """A module's file and all files beside it that it imports, directly or indirectly.

    For an installed package these are only its own files, not its dependencies'.
    """
    root = file.parents[module.count(".") + (file.name == "__init__.py")]
    installed = {"site-packages", "dist-packages"} & {*root.parts}
    top = module.partition(".")[0] if installed else ""
    found, left = set[Path](), {file}
    while left:
        one = left.pop()
        found.add(one)
        left |= {f for f in _imported(one, root) if not top or _is_of(f, root, top)} - found
    return found


def _is_of(file: Path, root: Path, top: str) -> bool:
    return file.relative_to(root).parts[0].removesuffix(".py") == top


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """The files below `root` that a source file imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    package = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = [*above, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield from _files_of(root, [*module, alias.name])


def _files_of(root: Path, parts: list[str]) -> Iterator[Path]:
    """The existing files of the module and of its parent packages."""
    for count in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file() and PACKAGE not in file.parents:  # zerocon has a separate digest
                yield file
