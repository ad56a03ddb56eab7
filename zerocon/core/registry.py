"""The classes that a config may name, by kind and public name.

Each package offers its classes by name without importing them (`offer`). Users' modules register
classes with `register`; they are imported only if the user names them, with `--plugin MODULE` or
as an entry point in the group `zerocon.plugins`. A config can name no other classes, and nothing
is imported before its name is found here.
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

# Kinds of classes and the packages that offer them; named, not imported, as core imports none.
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
PLUGINS = "ZEROCON_PLUGINS"  # environment variable with --plugin's modules, for worker processes

Class = TypeVar("Class", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Offer:
    """A class that is imported on first use."""

    module: str
    name: str

    def load(self) -> Any:
        return getattr(import_module(self.module), self.name)


@dataclass(frozen=True)
class _Known:
    """An imported class."""

    choice: Any

    def load(self) -> Any:
        return self.choice


_choices: dict[str, dict[str, _Offer | _Known]] = {kind: {} for kind in ROOMS}


def offer(package: str, **kinds: Mapping[str, str]) -> Callable[[str], Any]:
    """Offer a package's classes: for each kind, class name -> module in the package.

    Returns the package's `__getattr__`, which imports classes on first use. Underscores in a
    kind's name stand for spaces.
    """
    places: dict[str, _Offer] = {}
    for kind, names in kinds.items():
        offered = {name: _Offer(f"{package}.{module}", name) for name, module in names.items()}
        places |= offered
        _choices[kind.replace("_", " ")] |= {f"{package}.{n}": o for n, o in offered.items()}

    def __getattr__(name: str) -> Any:  # noqa: N807 - becomes the package's
        if name in places:
            return places[name].load()
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__


def register(kind: str) -> Callable[[Class], Class]:
    """Decorator that registers the class as this kind, under `module.Class`."""
    if kind not in ROOMS:
        raise ConfigError(f"register({kind!r}): there is no such kind; the kinds are: {_kinds()}")

    def registered(choice: Class) -> Class:
        public = f"{choice.__module__}.{choice.__qualname__}"
        if public.startswith(PACKAGE):
            raise ConfigError(f"{public} can't be registered: zerocon's own names are taken")
        _choices[kind][public] = _Known(choice)
        return choice

    return registered


def find(kind: str, name: str) -> Callable[..., Any]:
    """Return the class of that kind and name; ConfigError, before any import, if there is none."""
    public = public_name(kind, name)
    found = _all(kind).get(public)
    if found is None:
        load_plugins()
        found = _all(kind).get(public)
    if found is None:
        raise ConfigError(_not_found(kind, name))
    return cast("Callable[..., Any]", found.load())


def names(kind: str) -> list[str]:
    """The public names of all known classes of that kind."""
    return sorted(_all(kind))


def public_name(kind: str, name: str) -> str:
    """The current name: older configs name zerocon's classes by their file."""
    if not name.startswith(PACKAGE):
        return name
    public = f"{ROOMS[kind]}.{name.rpartition('.')[2]}"
    return public if public in _all(kind) else name


def _all(kind: str) -> dict[str, _Offer | _Known]:
    import_module(ROOMS[kind])  # which offers its classes
    return _choices[kind]


def _not_found(kind: str, name: str) -> str:
    others = [other for other in ROOMS if name in _all(other)]
    if others:
        return f"{name} is a {others[0]}, not a {kind}"
    return (
        f"{name} is not a known {kind}; there are: {', '.join(names(kind))}. A class of your own "
        f'is known once its module says @zerocon.register("{kind}") and the command --plugin MODULE'
    )


def _kinds() -> str:
    return ", ".join(ROOMS)


def use_plugins(modules: Sequence[str]) -> None:
    """Import these modules, in this process and in all processes it starts."""
    for module in modules:
        _load(module)
    if modules:
        every = [*_named(), *(m for m in modules if m not in _named())]
        os.environ[PLUGINS] = ",".join(every)


@cache
def load_plugins() -> None:
    """Import the modules named on the parent process's command line, and all entry points."""
    for module in _named():
        _load(module)
    for point in entry_points(group=GROUP):
        _guarded(point.value, point.load)


def _named() -> list[str]:
    return [name for name in os.environ.get(PLUGINS, "").split(",") if name]


def _load(module: str) -> ModuleType:
    """Import a module, also from the current folder, where users' modules usually are."""
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
    """The source files of users' classes in a config, and of the modules beside them that these
    import. zerocon's classes are not included.
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
    """Yield all class names in a config."""
    if isinstance(node, Mapping):
        for key, value in cast("Mapping[str, Any]", node).items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets(value)
    elif isinstance(node, list):
        for item in cast("list[Any]", node):
            yield from targets(item)
