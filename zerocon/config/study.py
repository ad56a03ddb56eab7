"""An experiment that tunes several methods with the same budget, then measures them on test cases.

study:
  objectives: [lpips_bg, edit_success]  # each metric declares which way is better
  trials: 24                            # of every method
  seed: 0                               # of the searches
  tune: [dataset.split=validation, dataset.subset=30]
  test: [dataset.split=test, dataset.subset=100]
  points: 3                             # settings of each method's front that are measured
  seeds: [0, 1, 2]                      # of each measured point
  methods:
    sdedit:
      overrides: [method=sdedit]
      space:
        method.strength: {float: [0.3, 0.9]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from zerocon.config.search_space import Dimension, Search, mapping, only, whole_number
from zerocon.core.checks import ConfigError, shown

KEYS = ("objectives", "trials", "seed", "tune", "test", "points", "seeds", "methods")


@dataclass(frozen=True)
class Tuned:
    """A method of a study: its overrides, and the settings that its search may choose."""

    overrides: tuple[str, ...]
    space: Mapping[str, Dimension]


@dataclass(frozen=True)
class Study:
    objectives: tuple[str, ...]
    trials: int
    seed: int
    tune: tuple[str, ...]
    test: tuple[str, ...]
    points: int
    seeds: tuple[int, ...]
    methods: Mapping[str, Tuned]

    @classmethod
    def read(cls, content: object) -> Self:
        """Read and check the `study` part of a file."""
        given = mapping("study", content)
        only("study", given, KEYS)
        numbers = {key: given[key] for key in ("trials", "seed") if key in given}
        methods = {
            name: _tuned(f"study.methods.{name}", said, given.get("objectives"), numbers)
            for name, said in mapping("study.methods", given.get("methods")).items()
        }
        if len(methods) < 2:
            raise ConfigError("study.methods must name two methods or more: it compares them")
        (_, search), *_ = methods.values()
        return cls(
            search.objectives,
            search.trials,
            search.seed,
            _overrides("study.tune", given.get("tune")),
            _overrides("study.test", given.get("test")),
            whole_number("study.points", given.get("points", 3), 1),
            _seeds(given.get("seeds", [0])),
            {name: Tuned(overrides, own.space) for name, (overrides, own) in methods.items()},
        )

    def search(self, method: str) -> Search:
        """The search that tunes the method, with the same budget as the others."""
        space = self.methods[method].space
        return Search(self.objectives, space, trials=self.trials, seed=self.seed)


def _tuned(
    name: str, said: object, objectives: object, numbers: Mapping[str, Any]
) -> tuple[tuple[str, ...], Search]:
    given = mapping(name, said)
    only(name, given, ("overrides", "space"))
    overrides = _overrides(f"{name}.overrides", given.get("overrides"))
    try:
        return overrides, Search.read(
            {"objectives": objectives, "space": given.get("space"), **numbers}
        )
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _seeds(said: object) -> tuple[int, ...]:
    if not isinstance(said, list) or not said:
        raise ConfigError(f"study.seeds is {shown(said)}; it must be like [0, 1, 2]")
    seeds = tuple(whole_number("study.seeds", seed, 0) for seed in cast("list[Any]", said))
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"study.seeds is {shown(said)}; it has a seed twice")
    return seeds


def _overrides(name: str, said: object) -> tuple[str, ...]:
    if not isinstance(said, list) or not all(isinstance(o, str) for o in cast("list[Any]", said)):
        raise ConfigError(f"{name} is {shown(said)}; it must be a list of overrides")
    return tuple(cast("list[str]", said))
