"""Results of a search: a table of the trials on the Pareto front, and a plot of all trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rich.console import Console

from zerocon.config.experiments import Experiment
from zerocon.config.search_space import Search
from zerocon.core.text import counted, printable
from zerocon.ledger.records import read_records
from zerocon.ledger.run_directory import ORIGIN as FILE
from zerocon.reports.comparison import same_cases
from zerocon.reports.evaluation import evaluation_of
from zerocon.reports.frontier.curves import CurveRuns, frontier_of
from zerocon.reports.frontier.plot import draw
from zerocon.reports.frontier.table import chosen, front_of
from zerocon.reports.layout import UNLIMITED, Cell, Grid, label, listed, ranks_of, value, wrapped
from zerocon.reports.render import markdown_text, write
from zerocon.reports.runs import Run, columns_of, find_runs, short_names
from zerocon.reports.summary import Column, Group, summarize
from zerocon.reports.table import TERMINAL

RESAMPLES = 100  # few: the intervals are not shown here


class Trial(Protocol):
    """Settings that a search tried, and the outcome."""

    @property
    def number(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, str]: ...
    @property
    def error(self) -> str: ...
    @property
    def run(self) -> str:
        """The name of its run's directory; "" without one."""
        ...


class Found(Protocol):
    """A search's trials and folders."""

    @property
    def root(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    @property
    def trials(self) -> Sequence[Trial]: ...
    @property
    def front(self) -> Sequence[Trial]: ...


def describe(experiment: Experiment, found: Found, plot: Path, form: str = TERMINAL) -> None:
    """Print how the trials ended, a row per trial on the front, and the plot's path."""
    search = experiment.search
    assert search is not None
    console = Console(soft_wrap=True)
    text = printable if form == TERMINAL else markdown_text
    for said in map(text, _counts(found)):
        console.print(said, highlight=False, markup=False)
    if not _places(found, found.front):
        console.print("There is no front: no trial finished.")
        return
    if form != TERMINAL:
        console.print()  # between a paragraph and a table
    width = console.width if form == TERMINAL else UNLIMITED
    write(_front(found, search, experiment.columns, width), form, console)
    if len(search.objectives) == 2:
        _draw(found, search, plot)
        console.print(
            f"\n{text(f'All trials with their numbers: {plot}')}",
            highlight=False,
            markup=False,
        )


def _counts(found: Found) -> list[str]:
    states = [trial.state for trial in found.trials]
    ended = [f"{states.count(s)} {s}" for s in ("done", "failed", "running") if s in states]
    front = len(found.front)
    total = f"{counted(len(states), 'trial')} ({', '.join(ended)})"
    said = [f"{total}, {front} on the front; see {found.folder}"]
    said += [f"trial {t.number + 1} failed: {t.error}" for t in found.trials if t.error]
    gone = [str(t.number + 1) for t in found.trials if t.run and not _is_there(found, t)]
    if gone:
        said.append(f"The runs of trials {', '.join(gone)} are missing and left out below.")
    return said


def _is_there(found: Found, trial: Trial) -> bool:
    return (found.root / trial.run / FILE).exists()


def _places(found: Found, trials: Sequence[Trial]) -> list[Path]:
    """The directories of the trials' runs, without duplicates."""
    there = [trial for trial in trials if trial.run and _is_there(found, trial)]
    return list(dict.fromkeys(found.root / trial.run for trial in there))


def _front(found: Found, search: Search, names: Sequence[str], width: int) -> list[Grid]:
    """A table of the trials on the front, ordered by the first objective."""
    runs = find_runs(_places(found, found.front))
    columns = columns_of(runs, list(dict.fromkeys([*search.objectives, *names])))
    known = [(run, summarize(read_records(run.directory), columns).overall) for run in runs]
    first = search.objectives[0]
    known.sort(key=lambda one: one[1].metrics[first].mean or 0.0)
    runs, groups = [run for run, _ in known], [group for _, group in known]
    shorts = short_names(list(search.space))
    settings = {shorts[key]: _settings(found, runs, key) for key in search.space}
    results = {label(column, "\n"): _results(groups, column) for column in columns}
    numbers = [(_numbers(found, run),) for run in runs]
    tables = wrapped("", ("trial",), numbers, (), [()] * len(runs), settings | results, width)
    notes = [*_how_many(groups, columns), evaluation_of(runs[0]).words()]
    return [*tables[:-1], replace(tables[-1], notes=notes)]


def _how_many(groups: Sequence[Group], columns: Sequence[Column]) -> list[str]:
    """Note the means' numbers of cases, for each column that lacks some."""
    cases = [group.cases for group in groups]
    said = [f"means ± standard error over cases: n = {listed(cases)}"]
    for column in columns:
        counts = [group.metrics[str(column["name"])].n for group in groups]
        if counts != cases:
            said.append(f"{column['name']}: n = {listed(counts)}")
    return said


def _settings(found: Found, runs: Sequence[Run], key: str) -> list[Cell]:
    tried = {trial.run: trial.settings for trial in found.front}
    return [Cell(tried[run.directory.name][key]) for run in runs]


def _results(groups: Sequence[Group], column: Column) -> list[Cell]:
    stats = [group.metrics[str(column["name"])] for group in groups]
    places = ranks_of(stats, column)
    return [Cell(value(s, column), place) for s, place in zip(stats, places, strict=True)]


def _draw(found: Found, search: Search, plot: Path) -> None:
    runs = find_runs(_places(found, found.trials))
    x, y = (chosen(runs, name, (), "search.objectives") for name in search.objectives)
    cells, _ = same_cases(runs, (x, y), intersection=False)
    best = {trial.run for trial in found.front}
    others, front = dict[str, list[int]](), dict[str, list[int]]()
    for place, run in enumerate(runs):
        points = front if run.directory.name in best else others
        points[_numbers(found, run)] = [place]
    kinds = {"other trials": others, "trials on the front": front}  # the last kind is drawn on top
    groups = [CurveRuns(kind, "", points) for kind, points in kinds.items() if points]
    made = frontier_of(runs, (x, y), cells, groups, resamples=RESAMPLES)
    draw(plot, made.curves, x, y, front_of(made))


def _numbers(found: Found, run: Run) -> str:
    """Numbers of the run's trials: trials with equal settings share a row and a point."""
    own = [trial for trial in found.trials if trial.run == run.directory.name]
    return ", ".join(str(trial.number + 1) for trial in own)
