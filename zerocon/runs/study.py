"""A study: each method tuned by a search of its own, then its front measured on test cases.

Every method has the same number of trials on the same validation cases. Trials and test runs are
runs like any other, so the same command continues an interrupted study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zerocon.config.experiments import Experiment
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.config.study import Study
from zerocon.core.checks import ConfigError
from zerocon.core.text import printable
from zerocon.runs.runner import CONSOLE, execute
from zerocon.runs.search import Found, run_search, values_of
from zerocon.runs.trials import Trial


@dataclass(frozen=True)
class Point:
    """One of a method's settings, measured once for each seed."""

    method: str
    number: int  # along the front, from the first objective's lowest value
    overrides: Sequence[str]  # chosen by the search
    settings: Sequence[RunSettings]  # one for each seed
    directories: Sequence[Path]


@dataclass(frozen=True)
class Studied:
    searches: dict[str, Found]
    points: Sequence[Point]
    failed: int  # cases of the test runs


def run_study(
    experiment: Experiment, more: Sequence[str] = (), only: Sequence[str] | None = None
) -> Studied:
    """Do what is left of the study (or of the methods in `only`)."""
    study = experiment.study
    if study is None:
        raise ConfigError(f"the experiment {experiment.name} is no study")
    names = [name for name in study.methods if only is None or name in only]
    searches: dict[str, Found] = {}
    for name in names:
        CONSOLE.print(printable(f"tuning {name}"), markup=False, highlight=False)
        searches[name] = run_search(_tuning(experiment, study, name), more)
    points: list[Point] = []
    failed = 0
    for name in names:
        for number, trial in enumerate(spread(searches[name], study), 1):
            settings = [
                compose_settings(more, foreign=_tested(experiment, study, name, number, trial, s))
                for s in study.seeds
            ]
            outcomes = [execute(one) for one in settings]
            failed += sum(outcome.failed for outcome in outcomes)
            directories = [outcome.directory for outcome in outcomes]
            points.append(Point(name, number, trial.overrides, settings, directories))
    return Studied(searches, points, failed)


def spread(found: Found, study: Study) -> list[Trial]:
    """At most `study.points` trials of the front, evenly along it, both ends among them."""
    trials = {trial.run: trial for trial in found.front if trial.run}  # equal settings share a run
    along = sorted(
        trials.values(), key=lambda t: values_of(found.root / t.run, study.objectives)[0]
    )
    if len(along) <= study.points:
        return along
    if study.points == 1:
        return [along[len(along) // 2]]
    step = (len(along) - 1) / (study.points - 1)
    return [along[round(k * step)] for k in range(study.points)]


def _tuning(experiment: Experiment, study: Study, name: str) -> Experiment:
    """The method's search as an experiment."""
    own = study.methods[name].overrides
    return replace(
        experiment,
        name=f"{experiment.name}_{name}",
        overrides=[*experiment.overrides, *own, *study.tune],
        search=study.search(name),
        study=None,
    )


def _tested(
    experiment: Experiment, study: Study, name: str, number: int, trial: Trial, seed: int
) -> list[str]:
    own = study.methods[name].overrides
    chosen = [*trial.overrides, *study.test, f"seed={seed}", f"name={name}_{number}"]
    return [*experiment.overrides, *own, *chosen]
