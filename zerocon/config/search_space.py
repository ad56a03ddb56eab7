"""The settings and metrics of an experiment that searches.

search:
  objectives: [lpips_bg, edit_success]  # each metric declares which way is better
  trials: 40
  seed: 0
  space:
    loss.cut_weight: {float: [0.03, 3.0], log: true}
    loss.n_patches: {int: [16, 256], log: true}
    method.guidance: {float: [2, 8], step: 0.5}
    loss.query: {choices: [edit, reference]}
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from zerocon.core.checks import ConfigError, in_range, shown

DIGITS = 3  # of a sampled number: more are noise, and no two trials would share settings
KINDS = ("float", "int", "choices")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None

    def holds(self, value: object) -> bool:
        """Return whether the search could sample this value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / (self.step or 1)
        return not (self.step or self.whole) or abs(steps - round(steps)) < 1e-8

    @property
    def ends(self) -> tuple[str, ...]:
        return self.spelt(self.low), self.spelt(self.high)

    def spelt(self, value: Any) -> str:
        """The value as an override spells it."""
        if self.whole:
            return str(int(value))
        rounded = float(f"{value:.12g}" if self.step else f"{value:.{DIGITS}g}")
        return str(min(max(rounded, self.low), self.high))


@dataclass(frozen=True)
class Choices:
    values: tuple[str, ...]  # as overrides give them

    @property
    def ends(self) -> tuple[str, ...]:
        return self.values

    def holds(self, value: object) -> bool:
        return not isinstance(value, dict) and spelt(value) in self.values

    def spelt(self, value: Any) -> str:
        """The value itself: it is already spelled as overrides spell it."""
        return value if isinstance(value, str) and value in self.values else spelt(value)


Dimension = Range | Choices


@dataclass(frozen=True)
class Search:
    objectives: tuple[str, ...]
    space: Mapping[str, Dimension]
    trials: int = 40
    seed: int = 0

    @classmethod
    def read(cls, content: object) -> Self:
        """Read and check the `search` part of a file."""
        given = mapping("search", content)
        only("search", given, ("objectives", "space", "trials", "seed"))
        space = mapping("search.space", given.get("space"))
        objectives = given.get("objectives")
        if not isinstance(objectives, list) or not objectives:
            raise ConfigError("search.objectives must list the metrics to improve")
        numbers = {name: given[name] for name in ("trials", "seed") if name in given}
        for name, value in numbers.items():
            whole_number(f"search.{name}", value, 1 if name == "trials" else 0)
        return cls(
            objectives=tuple(map(str, cast("list[Any]", objectives))),
            space={key: _dimension(f"search.space.{key}", said) for key, said in space.items()},
            **numbers,
        )


def spelt(value: object) -> str:
    """A value as Hydra's overrides write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(spelt(item) for item in cast('list[Any]', value))}]"
    if not isinstance(value, str):
        return str(value)
    plain = re.fullmatch(r"[A-Za-z_]\w*", value)
    means_more = value.lower() in ("null", "none", "true", "false", "nan", "inf")
    return value if plain and not means_more else "'" + value.replace("'", r"\'") + "'"


def _dimension(name: str, said: object) -> Dimension:
    given = mapping(name, said)
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        raise ConfigError(
            f"{name} is {shown(said)}; it must be like {{float: [0.1, 3.0], log: true}}, "
            "{int: [16, 256]} or {choices: [a, b]}"
        )
    if kinds == ["choices"]:
        only(name, given, ("choices",))
        return _choices(name, given["choices"])
    only(name, given, (kinds[0], "log", "step"))
    return _range(name, kinds[0], given)


def _choices(name: str, values: object) -> Choices:
    if not isinstance(values, list) or len(cast("list[Any]", values)) < 2:
        raise ConfigError(f"{name}.choices is {shown(values)}; it must list two values or more")
    written = tuple(spelt(value) for value in cast("list[Any]", values))
    if len(set(written)) < len(written):
        raise ConfigError(f"{name}.choices is {shown(values)}; it lists a value twice")
    return Choices(written)


def _range(name: str, kind: str, given: Mapping[str, Any]) -> Range:
    numbers, bounds = (int,) if kind == "int" else (int, float), given[kind]
    known = isinstance(bounds, list) and len(cast("list[Any]", bounds)) == 2
    if not known or not all(_is_number(b, numbers) for b in cast("list[Any]", bounds)):
        wanted = "whole numbers" if kind == "int" else "numbers"
        raise ConfigError(f"{name}.{kind} is {shown(bounds)}; it must be two {wanted}, [low, high]")
    low, high = cast("list[float]", bounds)
    log, step = given.get("log", False), given.get("step")
    if low >= high:
        raise ConfigError(f"{name}.{kind} is {shown(bounds)}; the first must be the smaller one")
    if not isinstance(log, bool):
        raise ConfigError(f"{name}.log is {shown(log)}; it must be true or false")
    if log and (low <= 0 or step is not None):
        raise ConfigError(f"{name}: log needs bounds above 0, and no step")
    if step is not None and not (_is_number(step, numbers) and 0 < step <= high - low):
        raise ConfigError(f"{name}.step is {shown(step)}; it must lie between 0 and {high - low:g}")
    made = Range(low, high, kind == "int", log, step)
    if not made.holds(high):
        raise ConfigError(f"{name}: no whole number of steps of {step} leads from {low} to {high}")
    return made


def _is_number(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)


def whole_number(name: str, value: object, low: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}; it must be a whole number")
    in_range(name, value, low)
    return value


def mapping(name: str, content: object) -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{name} is {shown(content)}; it must be a mapping of settings")
    return {str(key): value for key, value in cast("dict[Any, Any]", content).items()}


def only(name: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in given:
        if key not in allowed:
            raise ConfigError(f"{name}.{key}: there is no such key; there are {', '.join(allowed)}")
