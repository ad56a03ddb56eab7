"""Named sets of runs that answer a question: `experiments/*.yaml`.

A file says its `question`, what was `expected`, its `cost`, the `overrides` that all its
runs share, and its `runs`, each a name with overrides of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from zerocon.checks import ConfigError
from zerocon.config import RunSettings, compose_settings

FOLDER = Path(__file__).parent.parent / "experiments"


@dataclass(frozen=True)
class Experiment:
    name: str
    question: str
    expected: str
    cost: str
    runs: dict[str, list[str]]
    overrides: list[str] = field(default_factory=list[str])

    def settings(self, more: Sequence[str] = ()) -> list[RunSettings]:
        """Every run's settings, checked before the first one starts."""
        return [
            compose_settings([*self.overrides, *own, f"name={name}", *more])
            for name, own in self.runs.items()
        ]


def names(folder: Path = FOLDER) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def read_experiment(name: str, folder: Path = FOLDER) -> Experiment:
    file = folder / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"there is no experiment {name!r}; there are: {', '.join(names(folder))}")
    try:
        return Experiment(name=name, **yaml.safe_load(file.read_text()))
    except (TypeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is no experiment: {error}") from error
