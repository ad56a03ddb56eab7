"""Bind a config's nodes to classes, with checked settings.

A node names its class by `_target_`, a public name that the registry knows. Its other keys are
checked against the class's signature and annotations, including the elements of lists and
mappings; the class checks its own ranges. A setting that is itself a node with a `_target_` is
built in the same way.
"""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zerocon.core.cases import DatasetError
from zerocon.core.checks import ConfigError, one_of, shown
from zerocon.core.registry import find

if TYPE_CHECKING:
    from zerocon.methods.base import Method
    from zerocon.metrics.base import Metric

TARGET = "_target_"
# Kind of a node -> kind of the nodes inside it. Nodes of other kinds contain no nodes.
PARTS: Mapping[str, str] = {"loss": "loss term"}
_FINITE_INT = 2**53  # up to here, floats represent every whole number exactly


def build(config: Mapping[str, Any], group: str, later: Sequence[str] = ()) -> Callable[..., Any]:
    """The group's class with its checked settings bound; call it to make the object."""
    return bound(group, node_of(config, group), group, later)


def node_of(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The config's node for a group; ConfigError if there is none."""
    node = config.get(group)
    if not isinstance(node, dict):
        said = "is missing" if node is None else f"is {shown(node)}"
        raise ConfigError(f"{group} {said}; choose one with {group}=NAME")
    return cast("dict[str, Any]", node)


def bound(
    kind: str, node: Mapping[str, Any], path: str, later: Sequence[str] = ()
) -> Callable[..., Any]:
    """The class that a node names, with its settings bound; `path` is the node's place."""
    fields = dict(node)
    target = fields.pop(TARGET, None)
    if not isinstance(target, str):
        said = "names no class" if target is None else f"has the {TARGET} {shown(target)}"
        raise ConfigError(f"{path} {said}: it needs a `{TARGET}`, the public name of a {kind}")
    return typed(_class_of(kind, target, path), fields, path, later, PARTS.get(kind))


def _class_of(kind: str, target: str, path: str) -> Callable[..., Any]:
    try:
        return find(kind, target)
    except ConfigError as error:
        raise ConfigError(f"{path}.{TARGET}: {error}") from error


def method_of(config: Mapping[str, Any]) -> Method:
    """The method, with its losses if it uses losses."""
    from zerocon.losses import NoLosses

    make = build(config, "method", later=("loss",))
    takes_losses = "loss" in inspect.signature(make).parameters
    losses = build(config, "loss")()
    if takes_losses == isinstance(losses, NoLosses):
        raise ConfigError(_about_losses(make, takes_losses=takes_losses))
    return make(loss=losses) if takes_losses else make()


def _about_losses(make: Any, *, takes_losses: bool) -> str:
    name = make.func.__name__
    if takes_losses:
        return f"{name} needs losses, but loss=none gives it none; try loss=zerocon"
    return f"{name} uses no losses, so `loss` would have no effect; leave it out, or loss=none"


def metrics_of(config: Mapping[str, Any]) -> Callable[[], list[Metric]]:
    """A function that loads the metrics with their judge models."""
    makers = metric_makers(config)
    return lambda: [make() for make in makers.values()]


def metric_makers(config: Mapping[str, Any]) -> dict[str, Callable[..., Metric]]:
    """{"metrics.NAME": its class with settings bound}; calling one loads its judge model."""
    group = dict(node_of(config, "metrics"))
    shared = {key: group.pop(key) for key in ("protocol",) if key in group}
    makers: dict[str, Callable[..., Metric]] = {}
    for name, node in group.items():
        if node is not None:
            path = f"metrics.{name}"
            if not isinstance(node, dict):
                raise ConfigError(f"{path} is {shown(node)}; it must be a metric, or null for none")
            makers[path] = bound("metric", {**shared, **node}, path)
            _check_columns(makers[path], path)
    return makers


def _check_columns(make: Any, path: str) -> None:
    """Check the names of columns now, before the judge model is loaded."""
    known = [column.name for column in getattr(make.func, "known", ())]
    for column in make.keywords.get("columns") or ():
        one_of(f"{path}.columns", column, known)


def typed(
    cls: Callable[..., Any],
    fields: Mapping[str, Any],
    path: str,
    later: Sequence[str] = (),
    part: str | None = None,
) -> Callable[..., Any]:
    """`cls` with `fields` bound, each checked against its annotation. `part`: the kind of class
    that a field with a `_target_` names."""
    declared = Declared.of(cls)
    values = {
        name: declared.checked(name, value, f"{path}.{name}", part)
        for name, value in fields.items()
        if declared.has(name, path) and not (value is None and name not in declared.named)
    }
    for name, parameter in declared.named.items():
        if parameter.default is parameter.empty and name not in values and name not in later:
            raise ConfigError(f"{path}.{name} is needed: give it as {path}.{name}=…")
    _check_early(cls, values, path)
    return partial(cls, **values)


def _check_early(cls: Callable[..., Any], values: Mapping[str, Any], path: str) -> None:
    """Let a class that is instantiated later check its settings now (`check_settings`)."""
    check = getattr(cls, "check_settings", None)
    if check is not None:
        try:
            check(values)
        except DatasetError as error:
            raise ConfigError(f"{path}.{error}") from error


class Declared:
    """A class's settings: its constructor's arguments with their annotations.

    `**more: Unpack[Some]` stands for all of Some's keys, and `**parts: Part` for any name.
    """

    def __init__(
        self, named: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], rest: Any
    ) -> None:
        self.named, self.hints, self.rest = named, hints, rest

    @classmethod
    def of(cls, choice: Callable[..., Any]) -> Declared:
        named = dict(inspect.signature(choice).parameters)
        hints = _hints(choice)
        rest = None
        for name, parameter in list(named.items()):
            if parameter.kind is parameter.VAR_POSITIONAL:
                del named[name]
            elif parameter.kind is parameter.VAR_KEYWORD:
                del named[name]
                rest = hints.pop(name, Any)
                if typing.get_origin(rest) is typing.Unpack:
                    more = typing.get_type_hints(typing.get_args(rest)[0])
                    hints |= more
                    rest = None
                    named |= {k: inspect.Parameter(k, _KEYWORD, default=UNSTATED) for k in more}
        return cls(named, hints, rest)

    def has(self, name: str, path: str) -> bool:
        """Return True, or raise a ConfigError that suggests the nearest names."""
        if name not in self.named and self.rest is None:
            known = [f"{path}.{other}" for other in self.named]
            raise ConfigError(unknown(f"{path}.{name}", known))
        return True

    def checked(self, name: str, value: object, path: str, part: str | None) -> Any:
        """The value, checked and converted to the annotated type."""
        if value == "???":
            raise ConfigError(f"{path} is needed: give it as {path}=…")
        hint = self.hints.get(name, Any) if name in self.named else self.rest
        made = _with_parts(value, path, part)
        if not fits(made, hint):
            raise ConfigError(_does_not_fit(made, hint, path))
        return as_declared(made, hint)


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
UNSTATED = object()  # stands for a default that the signature does not state


def _hints(choice: Callable[..., Any]) -> dict[str, Any]:
    try:
        # A dataclass may inherit fields, whose annotations belong to other modules.
        own_init = inspect.isclass(choice) and not is_dataclass(choice)
        return typing.get_type_hints(choice.__init__ if own_init else choice)
    except NameError as error:
        name = getattr(choice, "__name__", str(choice))
        raise ConfigError(
            f"{name}'s annotations can't be read ({error}): import what they name at run time"
        ) from error


def _with_parts(value: object, path: str, part: str | None) -> Any:
    """The value with each node that names a class built; ConfigError where none is allowed."""
    if isinstance(value, dict):
        node = cast("dict[str, Any]", value)
        if TARGET not in node:
            return {k: _with_parts(v, f"{path}.{k}", None) for k, v in node.items()}
        if part is None:
            raise ConfigError(f"{path} names a class ({shown(node[TARGET])}), but takes none")
        return bound(part, node, path)()
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_with_parts(item, f"{path}[{i}]", None) for i, item in enumerate(items)]
    return value


def fits(value: Any, hint: Any) -> bool:
    """Return whether the value matches the annotation; True if that can't be checked."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    if origin is typing.Literal:
        return any(value == a and type(value) is type(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if hint is Any:
        return _is_finite(value)
    return _fits_class(value, origin or hint, arguments)


def _fits_class(value: Any, kind: Any, arguments: Sequence[Any]) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    if kind is int:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_whole(value)
    if kind in (list, tuple, set, collections.abc.Sequence):
        return isinstance(value, list) and _elements_fit(value, kind, arguments)
    if kind in (dict, collections.abc.Mapping):
        return isinstance(value, dict) and _items_fit(cast("dict[Any, Any]", value), arguments)
    plain: dict[Any, type] = {str: str, Path: str, bool: bool, type(None): type(None)}
    if kind in plain:
        return isinstance(value, plain[kind])
    if not isinstance(value, (dict, list, str, int, float)) and inspect.isclass(kind):
        return isinstance(value, kind) or getattr(kind, "_is_protocol", False)
    return not inspect.isclass(kind)


def _elements_fit(value: Sequence[Any], kind: Any, arguments: Sequence[Any]) -> bool:
    if not arguments:
        return _is_finite(value)
    if kind is tuple and arguments[-1] is not Ellipsis:
        pairs = zip(value, arguments, strict=False)
        return len(value) == len(arguments) and all(fits(item, hint) for item, hint in pairs)
    return all(fits(item, arguments[0]) for item in value)


def _items_fit(value: Mapping[Any, Any], arguments: Sequence[Any]) -> bool:
    if not arguments:
        return _is_finite(value)
    key, item = arguments
    return all(fits(k, key) and fits(v, item) for k, v in value.items())


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or (value.is_integer() and abs(value) <= _FINITE_INT)


def _is_finite(value: object) -> bool:
    """Return whether there is no nan or infinity, also inside lists and mappings."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_finite(item) for item in cast("dict[Any, Any]", value).values())
    return not isinstance(value, list) or all(_is_finite(i) for i in cast("list[Any]", value))


def as_declared(value: Any, hint: Any) -> Any:
    """Convert YAML's lists, text and numbers to the tuples, paths and integers of a signature."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return as_declared(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        return as_declared(value, next(option for option in arguments if fits(value, option)))
    kind = origin or hint
    if kind is Path:
        return Path(value)
    if kind is int:
        return int(value)
    if kind is tuple and isinstance(value, list):
        items, hints = cast("list[Any]", value), [*arguments]
        if not hints or hints[-1] is Ellipsis:
            hints = [arguments[0] if arguments else Any] * len(items)
        return tuple(as_declared(item, hint) for item, hint in zip(items, hints, strict=True))
    if kind in (list, collections.abc.Sequence) and arguments:
        return [as_declared(item, arguments[0]) for item in value]
    if kind in (dict, collections.abc.Mapping) and arguments:
        return {key: as_declared(item, arguments[1]) for key, item in value.items()}
    return value


def _does_not_fit(value: object, hint: Any, path: str) -> str:
    wanted = type_name(hint)
    if not _is_finite(value):
        return f"{path} is {shown(value)}; it must be {wanted}, and every number finite"
    return f"{path} is {shown(value)}; it must be {wanted}"


def type_name(hint: Any) -> str:
    """An annotation in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return "one of: " + ", ".join(str(a) for a in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(option) for option in arguments)
    if origin in (list, tuple, collections.abc.Sequence):
        return _list_name(arguments)
    if origin in (dict, collections.abc.Mapping):
        return f"a mapping to {type_name(arguments[1])}, like {{name: …}}"
    return _NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _list_name(arguments: Sequence[Any]) -> str:
    if len(arguments) > 1 and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: [{', '.join(type_name(a) for a in arguments)}]"
    return f"a list, each item {type_name(arguments[0])}" if arguments else "a list"


_NAMES: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "a mapping, like {name: …}",
}


def unknown(key: str, known: Sequence[str]) -> str:
    """The message for an unknown setting, with similar names and the group's other settings."""
    known = [k for k in dict.fromkeys(known) if not k.endswith(TARGET)]
    group, _, last = key.rpartition(".")
    # A setting that moved into a part of its group still ends in the same word.
    alike = [
        k for k in known if difflib.SequenceMatcher(None, k.rpartition(".")[2], last).ratio() >= 0.8
    ]
    inside = [k for k in alike if k.startswith(f"{group.partition('.')[0]}.")]
    near = inside[:3] or difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if not group:  # a misspelt group, rather than one of all its settings
        top = [k for k in known if "." not in k]
        near = difflib.get_close_matches(key, top, n=1, cutoff=0.6) or alike[:3] or near
    siblings = [k for k in known if k.rpartition(".")[0] == group]
    said = f"there is no setting {key!r}"
    if near:
        said += f"; did you mean {' or '.join(near)}?"
    elif siblings:
        said += "."
    if siblings:
        said += f" {group or 'At the top level'} has: {', '.join(sorted(siblings))}."
    return said
