"""What a search found: the trials that no other one beats, and all of them drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from zerocon.experiments import Experiment
from zerocon.reports.comparison import same_cases
from zerocon.reports.frontier import Strand, frontier_of
from zerocon.reports.frontier_plot import draw
from zerocon.reports.frontier_table import chosen, front_of
from zerocon.reports.measured import TERMINAL, print_table
from zerocon.reports.runs import Run, find_runs
from zerocon.runs.origin import FILE
from zerocon.runs.search import Found
from zerocon.runs.trials import Trial
from zerocon.search import Search

RESAMPLES = 100  # of intervals that are not shown here


def describe(experiment: Experiment, found: Found, plot: Path, form: str = TERMINAL) -> None:
    """How the trials ended, a row for each setting on the front, and where all are drawn."""
    search = experiment.search
    assert search is not None
    console = Console(soft_wrap=True)
    for said in _counts(found):
        console.print(escape(said), highlight=False)
    front = _runs(found, found.front)
    if not front:
        console.print("There is no front: no trial came to an end.")
        return
    print_table(front, rows=list(search.space), metrics=experiment.columns, form=form)
    if len(search.objectives) == 2:
        plot.parent.mkdir(parents=True, exist_ok=True)
        _draw(found, search, plot)
        console.print(escape(f"All trials, by their numbers: {plot}"), highlight=False)


def _counts(found: Found) -> list[str]:
    states = [trial.state for trial in found.trials]
    ended = ", ".join(
        f"{states.count(s)} {s}" for s in ("done", "failed", "running") if s in states
    )
    said = [f"{len(states)} trials ({ended}); {_listed(found.front)} on the front ({found.folder})"]
    said += [f"trial {t.number + 1} failed: {t.error}" for t in found.trials if t.error]
    gone = [t for t in found.trials if t.run and not (found.root / t.run / FILE).exists()]
    if gone:
        said.append(f"the runs of {_listed(gone)} are gone, and so are they from what follows")
    return said


def _listed(trials: Sequence[Trial]) -> str:
    return "trials " + (", ".join(str(trial.number + 1) for trial in trials) or "none")


def _runs(found: Found, trials: Sequence[Trial]) -> list[Path]:
    """Their directories, each once."""
    places = dict.fromkeys(found.root / trial.run for trial in trials if trial.run)
    return [place for place in places if (place / FILE).exists()]


def _draw(found: Found, search: Search, plot: Path) -> None:
    runs = find_runs(_runs(found, found.trials))
    x, y = (chosen(runs, name, (), "search.objectives") for name in search.objectives)
    cells, _ = same_cases(runs, (x, y), intersection=False)
    points = {_numbers(found, run): [place] for place, run in enumerate(runs)}
    trials = [Strand("trials", "", points)]
    made = frontier_of(runs, (x, y), cells, trials, resamples=RESAMPLES)
    draw(plot, made.curves, x, y, front_of(made))


def _numbers(found: Found, run: Run) -> str:
    """Trials of the same settings are one point."""
    own = [trial for trial in found.trials if trial.run == run.directory.name]
    return ", ".join(str(trial.number + 1) for trial in own)
