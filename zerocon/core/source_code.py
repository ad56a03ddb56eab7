"""Digests of source files, found without running them."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, cast

PACKAGE = Path(__file__).parent.parent


def digest_of_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@cache
def code_of(*modules: str) -> str:
    """The digest of these imported modules' files and of all modules of ours that they use."""
    return digest_of_files(_file_of(name) for name in sorted(_used_by(modules)))


def _file_of(module: str) -> Path:
    return Path(inspect.getfile(sys.modules[module]))


def _used_by(modules: Iterable[str]) -> set[str]:
    """The modules, and those of the package or beside them whose functions or classes they use."""
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


def sources_of(config: Mapping[str, Any]) -> list[Path]:
    """The source files of all classes outside the package that a config names."""
    outside = {name for name in _classes(config) if name.partition(".")[0] != PACKAGE.name}
    return sorted({file for name in outside for file in sources_of_class(name)})


def _classes(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in cast("Mapping[str, Any]", node).items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _classes(value)
    elif isinstance(node, (list, tuple)):
        for value in cast("list[Any]", node):
            yield from _classes(value)


def sources_of_class(target: str) -> list[Path]:
    """The file of a class given by its dotted path, and the files beside it that it imports.

    Nothing is imported or run. Modules that lie elsewhere (installed packages) are not followed;
    an empty list if the class's module can't be found.
    """
    first, root = _module_file(target.rpartition(".")[0]), _root_of(target.partition(".")[0])
    if first is None or root is None:
        return []
    found, left = set[Path](), {first}
    while left:
        file = left.pop()
        found.add(file)
        left |= set(_imported(file, root)) - found
    return sorted(found)


def _module_file(module: str) -> Path | None:
    """The file of a module, or of the nearest module around it."""
    places: list[str] | None = None
    file: Path | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            break
        if spec.origin is not None:
            file = Path(spec.origin)
        places = list(spec.submodule_search_locations or [])
    return file if file is not None and file.suffix == ".py" else None


def _root_of(package: str) -> Path | None:
    """The folder that a top-level module or package lies in."""
    spec = PathFinder.find_spec(package)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.origin else None


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
    """The module's own file and those of the packages around it, as far as they are there."""
    for count in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file() and PACKAGE not in file.parents:  # which has a digest of its own
                yield file
