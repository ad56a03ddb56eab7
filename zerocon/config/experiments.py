"""Named sets of runs that answer a question: `experiments/*.yaml`.

A file states its `question`, what was `expected`, its `cost`, the `overrides` that all its
runs share, and one of these:
- `runs`: names with overrides of their own, or names of curves with the runs along each;
- `sweep`: settings with lists of values; every combination is a run;
- `search` (see `search_space.py`): each run's settings are chosen from the earlier runs' results;
- `study` (see `study.py`): a search for each of several methods, then test runs of their fronts.
`columns` are the metrics that answer the question, `intervals` says whether to print confidence
intervals with them, `rows` whether to count each run's rows through the network, and `plot` says
what `zerocon frontier` draws.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zerocon.config.bind import typed
from zerocon.config.compose import MOST_RUNS
from zerocon.config.files import read_mapping
from zerocon.config.places import EXPERIMENTS as FOLDER
from zerocon.config.search_space import Search
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.config.study import Study
from zerocon.core.checks import ConfigError


@dataclass(frozen=True)
class Experiment:
    name: str
    question: str
    expected: str
    cost: str
    runs: dict[str, list[str] | dict[Any, list[str]]] = field(
        default_factory=dict[str, list[str] | dict[Any, list[str]]]
    )
    sweep: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    overrides: list[str] = field(default_factory=list[str])
    columns: list[str] = field(default_factory=list[str])
    intervals: bool = False  # print confidence intervals of the means, not standard errors
    rows: bool = False  # count the rows through the network that one edit takes
    plot: dict[str, Any] = field(default_factory=dict[str, Any])
    search: Search | None = None
    study: Study | None = None

    def all_runs(self) -> dict[str, list[str]]:
        """{name of a run: its own overrides}"""
        listed = {name: own for points in self._points().values() for name, own in points.items()}
        return {**listed, **self._swept()}

    def curves(self) -> dict[str, str] | None:
        """{name of a run: its curve}, if the file defines curves."""
        if not any(isinstance(own, dict) for own in self.runs.values()):
            return None
        listed = {name: curve for curve, points in self._points().items() for name in points}
        return {name: listed.get(name, name) for name in self.all_runs()}

    def _points(self) -> dict[str, dict[str, list[str]]]:
        """The runs under each name in `runs`: one, or several along a curve."""
        return {
            name: {f"{name}_{_word(point)}": overrides for point, overrides in own.items()}
            if isinstance(own, dict)
            else {name: own}
            for name, own in self.runs.items()
        }

    def settings(
        self, more: Sequence[str] = (), only: Sequence[str] | None = None
    ) -> list[RunSettings]:
        """The settings of all runs (or those in `only`), checked before the first one starts."""
        return [
            compose_settings(more, foreign=[*self.overrides, *own, f"name={name}"])
            for name, own in self.all_runs().items()
            if only is None or name in only
        ]

    def _swept(self) -> dict[str, list[str]]:
        if not self.sweep:
            return {}
        count = math.prod(map(len, self.sweep.values()))
        if count > MOST_RUNS:
            raise ConfigError(f"the sweep has {count:,} runs; at most {MOST_RUNS:,} are allowed")
        combinations = itertools.product(*self.sweep.values())
        settled = [dict(zip(self.sweep, values, strict=True)) for values in combinations]
        return {
            "_".join(f"{_short(key)}_{_word(value)}" for key, value in chosen.items()): [
                f"{key}={value}" for key, value in chosen.items()
            ]
            for chosen in settled
        }


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _word(value: Any) -> str:
    """A value as part of a run's name."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")


def names(folder: Path = FOLDER) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def read_experiment(name: str, folder: Path = FOLDER) -> Experiment:
    """The experiment with that name, or the one in a file such as my/file.yaml.

    Its overrides may come from a stranger; they are checked when they are composed.
    """
    is_path = name.endswith(".yaml")
    file = Path(name) if is_path else folder / f"{name}.yaml"
    if not file.is_file():
        known = "" if is_path else f"; there are: {', '.join(names(folder))}"
        raise ConfigError(f"there is no experiment {name!r}{known}")
    try:
        content = read_mapping(file)
        if "search" in content:
            content["search"] = Search.read(content["search"])
        if "study" in content:
            content["study"] = Study.read(content["study"])
        return typed(Experiment, {"name": file.stem, **content}, "experiment")()
    except ConfigError as error:
        raise ConfigError(f"{file} is no experiment: {error}") from error
