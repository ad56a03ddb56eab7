"""Runs whose settings are chosen by how earlier ones did.

A trial is a run like any other, in a directory named by its content: trials that come upon the
same settings share it, and one that was cut off goes on. What was tried and what came of it is
in the search's folder, named by what is searched: the same command continues the same search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerocon.backbones.base import BackboneError
from zerocon.config.bind import build
from zerocon.config.compose import compose_config, plain
from zerocon.config.experiments import Experiment
from zerocon.config.search_space import Search
from zerocon.config.settings import (
    RunSettings,
    compose_settings,
    runner_settings,
    settings_of,
)
from zerocon.core.cases import DatasetError
from zerocon.core.checks import ConfigError
from zerocon.core.naming import DETERMINISTIC, content_of, digest, is_in_name
from zerocon.core.records import RecordError
from zerocon.core.text import printable
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.identity import Identity, InputsChangedError, changes, refusal
from zerocon.ledger.run_directory import INPUTS, RunDirectory
from zerocon.reports.summary import summarize
from zerocon.runs.inputs import UNRECORDED, inputs_of
from zerocon.runs.runner import CONSOLE, execute
from zerocon.runs.trials import JOURNAL, Trial, Trials

FOLDER = "searches"
REMEDY = "Remove the search's folder; the trials' own runs stay."


class TrialError(Exception):
    """The run came to an end, but it says nothing about its settings."""


@dataclass(frozen=True)
class Found:
    """All that a search knows."""

    root: Path  # of the runs
    folder: Path
    trials: Sequence[Trial]
    front: Sequence[Trial]


def run_search(experiment: Experiment, more: Sequence[str] = (), most: int | None = None) -> Found:
    """Do what is left of the search, and tell what it has found."""
    asked = _Asked.of(experiment, more)
    asked.folder.mkdir(parents=True, exist_ok=True)
    _check_inputs(asked)
    with Trials(asked.folder, asked.search) as trials:
        trials.open(asked.better, asked.usual())
        most = most or asked.search.trials
        while trial := trials.next(most):
            said = f"trial {trial.number + 1} of {most}: {' '.join(trial.overrides)}"
            CONSOLE.print(printable(said), markup=False, highlight=False, soft_wrap=True)
            _try(trials, trial, asked)
        return Found(asked.root, asked.folder, trials.all(), trials.front())


def _check_inputs(asked: _Asked) -> None:
    """Refuse to compare trials of different inputs: those of the search's beginning are kept."""
    file = asked.folder / INPUTS
    now = inputs_of(asked.config, build(asked.config, "dataset", later=("pixels",)))
    if not file.exists() and not (asked.folder / JOURNAL).exists():
        write_atomic(file, now.to_json())
    before = Identity.from_json(file.read_bytes()) if file.exists() else None
    changed = [UNRECORDED] if before is None else changes(before, now)
    if changed:
        raise InputsChangedError(refusal(asked.folder, changed, now.dataset, REMEDY))


def _try(trials: Trials, trial: Trial, asked: _Asked) -> None:
    """Run it. What its settings are not to blame for ends the search, to be begun again."""
    try:
        outcome = execute(asked.settings(trial))
        trials.done(
            trial, outcome.directory.name, values_of(outcome.directory, asked.search.objectives)
        )
    except (BackboneError, DatasetError, RecordError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 (one bad trial never ends a search)
        said = str(error) if isinstance(error, (ConfigError, TrialError)) else _named(error)
        failed = printable(f"trial {trial.number + 1} failed: {said}")
        CONSOLE.print(failed, style="red", markup=False)
        trials.failed(trial, said)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def values_of(directory: Path, objectives: Sequence[str]) -> list[float]:
    """The run's mean of each; a mean over other cases than the other trials' is none."""
    run = RunDirectory(directory)
    records = run.records()
    overall = summarize(records, run.origin.columns).overall
    if overall.failed:
        first = next(record for record in records if not record.ok)
        raise TrialError(
            f"{overall.failed} of {overall.cases} cases failed, the first of them "
            f"{first.case}: {first.error}"
        )
    means = {name: overall.metrics[name].mean for name in objectives}
    unknown = [name for name, mean in means.items() if mean is None]
    if unknown:
        raise TrialError(f"{unknown[0]} could be measured in no case")
    return [mean for mean in means.values() if mean is not None]


@dataclass(frozen=True)
class _Asked:
    """A search with its overrides: what determines its name."""

    experiment: Experiment
    search: Search
    more: Sequence[str]
    config: dict[str, Any]  # of a run without any trial's settings

    @classmethod
    def of(cls, experiment: Experiment, more: Sequence[str]) -> _Asked:
        search = experiment.search
        if search is None:
            raise ConfigError(f"the experiment {experiment.name} searches nothing")
        for key in search.space:
            _check_key(key, more)
        config = plain(compose_config(more, foreign=_listed(experiment, ())))
        if runner_settings(config).shard != "1/1":
            raise ConfigError("a search needs whole runs: leave runner.shard out")
        if config["dataset"].get("split") == "test":
            raise ConfigError(
                "a search chooses settings by their results, so it may not see the test cases: "
                "dataset.split=validation"
            )
        return cls(experiment, search, more, config)

    @property
    def root(self) -> Path:
        return Path(self.config["runner"]["root"])

    @property
    def folder(self) -> Path:
        what = asdict(self.search) | {"content": content_of(self.config)}
        del what["trials"]  # more of them continue the same search
        return self.root / FOLDER / f"{self.experiment.name}-{digest(what)}"

    def settings(self, trial: Trial) -> RunSettings:
        return compose_settings(self.more, foreign=_listed(self.experiment, trial.overrides))

    def _check(self) -> None:
        """Every end of the space, one at a time beside the usual settings."""
        settings_of(self.config)
        for key, dimension in self.search.space.items():
            for value in dimension.ends:
                try:
                    compose_settings(
                        self.more, foreign=_listed(self.experiment, [f"{key}={value}"])
                    )
                except ConfigError as error:
                    raise ConfigError(f"search.space has {key}={value}, but {error}") from error

    def better(self) -> list[str]:
        """Which way each objective is better, as its metric declares; all else is checked first."""
        self._check()
        columns = {c.name: c for m in settings_of(self.config).metrics() for c in m.columns}
        for name in self.search.objectives:
            if name not in columns:
                known = ", ".join(columns)
                raise ConfigError(f"search.objectives: no metric gives {name}; there is: {known}")
            if not columns[name].better:
                raise ConfigError(f"search.objectives: of {name} neither more nor less is better")
        return [columns[name].better for name in self.search.objectives]

    def usual(self) -> dict[str, object]:
        return {key: _at(self.config, key) for key in self.search.space}


def _listed(experiment: Experiment, own: Sequence[str]) -> list[str]:
    """What the experiment's file says of a run; what the command line says comes after it."""
    return [*experiment.overrides, *own, f"name={experiment.name}"]


def _check_key(key: str, more: Sequence[str]) -> None:
    if key in ("name", "seed", DETERMINISTIC) or not is_in_name(key):
        raise ConfigError(f"search.space has {key}, but that is no setting of what is done")
    if any(override.partition("=")[0].lstrip("+~") == key for override in more):
        raise ConfigError(f"{key} is what is searched: it can't be given")


def _at(config: dict[str, Any], key: str) -> object:
    """The value of a dotted key, or None."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
