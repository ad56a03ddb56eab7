"""Which classes a config may name: as which kind of thing, and by which public name.

The package of each room offers its classes by name without importing them (`offer`). A module of
the user's own registers its classes with `register`; it is imported only when the user names it,
with `--plugin MODULE` or as an entry point in the group `zerocon.plugins`. A config, wherever it
comes from, can name nothing else, and nothing is imported before its name is found here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from zerocon.core.checks import ConfigError
from zerocon.core.source_code import with_imports

# The kinds of things, and the package that offers each. Named, not imported: core needs no room.
ROOMS: Mapping[str, str] = {
    "backbone": "zerocon.backbones",
    "dataset": "zerocon.datasets",
    "direction": "zerocon.directions",
    "inversion": "zerocon.inversions",
    "loss": "zerocon.losses",
    "loss term": "zerocon.losses",
    "method": "zerocon.methods",
    "metric": "zerocon.metrics",
    "tracker": "zerocon.trackers",
}
PACKAGE = "zerocon."
GROUP = "zerocon.plugins"  # of entry points
PLUGINS = "ZEROCON_PLUGINS"  # environment variable: what --plugin named, for worker processes

Class = TypeVar("Class", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Offer:
    """A class that is imported when somebody asks for it."""

    module: str
    name: str

    def load(self) -> Any:
        return getattr(import_module(self.module), self.name)


@dataclass(frozen=True)
class _Known:
    """A class that is there."""

    choice: Any

    def load(self) -> Any:
        return self.choice


_choices: dict[str, dict[str, _Offer | _Known]] = {kind: {} for kind in ROOMS}


def offer(package: str, **kinds: Mapping[str, str]) -> Callable[[str], Any]:
    """Offer a package's classes: of each kind, class name -> module in the package.

    The result is the package's `__getattr__`, which imports a class when it is used. An
    underscore in a kind's name stands for a space.
    """
    places: dict[str, _Offer] = {}
    for kind, names in kinds.items():
        offered = {name: _Offer(f"{package}.{module}", name) for name, module in names.items()}
        places |= offered
        _choices[kind.replace("_", " ")] |= {f"{package}.{n}": o for n, o in offered.items()}

    def __getattr__(name: str) -> Any:  # noqa: N807 - the package's own
        if name in places:
            return places[name].load()
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


def register(kind: str) -> Callable[[Class], Class]:
    """A decorator: the class may be chosen as this kind of thing, by `module.Class`."""
    if kind not in ROOMS:
        raise ConfigError(f"register({kind!r}): there is no such kind; there are: {_kinds()}")

    def registered(choice: Class) -> Class:
        public = f"{choice.__module__}.{choice.__qualname__}"
        if public.startswith(PACKAGE):
            raise ConfigError(f"{public} can't be registered: zerocon's own names are taken")
        _choices[kind][public] = _Known(choice)
        return choice

    return registered


def find(kind: str, name: str) -> Callable[..., Any]:
    """The class of that kind and name; ConfigError if there is none, before any import."""
    public = public_name(kind, name)
    found = _all(kind).get(public)
    if found is None:
        load_plugins()
        found = _all(kind).get(public)
    if found is None:
        raise ConfigError(_not_found(kind, name))
    return cast("Callable[..., Any]", found.load())


def names(kind: str) -> list[str]:
    """The public name of every class of that kind that is known so far."""
    return sorted(_all(kind))


def public_name(kind: str, name: str) -> str:
    """The name as it is now: a class of zerocon may have been named by its file before."""
    if not name.startswith(PACKAGE):
        return name
    public = f"{ROOMS[kind]}.{name.rpartition('.')[2]}"
    return public if public in _all(kind) else name


def _all(kind: str) -> dict[str, _Offer | _Known]:
    import_module(ROOMS[kind])  # which offers its own
    return _choices[kind]


def _not_found(kind: str, name: str) -> str:
    others = [other for other in ROOMS if name in _all(other)]
    if others:
        return f"{name} is a {others[0]}, not a {kind}"
    return (
        f"{name} is no {kind} that is known here: {', '.join(names(kind))}. A class of your own "
        f'is known once its module says @zerocon.register("{kind}") and the command --plugin MODULE'
    )


def _kinds() -> str:
    return ", ".join(ROOMS)


def use_plugins(modules: Sequence[str]) -> None:
    """Import these modules, here and in every process that this one starts."""
    for module in modules:
        _load(module)
    if modules:
        every = [*_named(), *(m for m in modules if m not in _named())]
        os.environ[PLUGINS] = ",".join(every)


@cache
def load_plugins() -> None:
    """Import what the parent process's command line named, and all entry points."""
    for module in _named():
        _load(module)
    for point in entry_points(group=GROUP):
        _guarded(point.value, point.load)


def _named() -> list[str]:
    return [name for name in os.environ.get(PLUGINS, "").split(",") if name]


def _load(module: str) -> ModuleType:
    """By name, from the current folder too: that is where a user's own module usually is."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return _guarded(module, lambda: import_module(module))


def _guarded(name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:
        said = str(error) or type(error).__name__
        raise ConfigError(f"the plugin {name} can't be imported: {said}") from error


def sources_of(config: Mapping[str, Any]) -> list[Path]:
    """The source files of the user's own classes that a config names, and of the modules beside
    them that these import. Classes of zerocon have none here.
    """
    named = {name for name in targets(config) if not name.startswith(PACKAGE)}
    if named:
        load_plugins()
    chosen = [_choices[kind][n].load() for kind in ROOMS for n in named & _choices[kind].keys()]
    modules = {choice.__module__ for choice in chosen}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in modules}
    return sorted(
        {f for name, file in files.items() if file for f in with_imports(name, Path(file))}
    )


def targets(node: object) -> Iterator[str]:
    """Every class that is named anywhere in a config."""
    if isinstance(node, Mapping):
        for key, value in cast("Mapping[str, Any]", node).items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets(value)
    elif isinstance(node, list):
        for item in cast("list[Any]", node):
            yield from targets(item)
