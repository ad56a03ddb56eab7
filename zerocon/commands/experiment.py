"""`zerocon experiment`: run named sets of runs that answer a question."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_composing, add_verbose
from zerocon.core.quiet import quiet_models
from zerocon.core.text import counted

if TYPE_CHECKING:
    from zerocon.config.experiments import Experiment
    from zerocon.config.settings import RunSettings

_MACHINE = " on two processor cores"  # on which the experiments' costs were measured


def add(commands: Any) -> None:
    experiment = commands.add_parser(
        "experiment", aliases=["experiments"], help="run a named set of runs that answer a question"
    )
    experiment.add_argument("name", nargs="?", help="default: list the experiments")
    experiment.add_argument("overrides", nargs="*", help="for every run; as for run.py")
    experiment.add_argument("--only", nargs="+", metavar="RUN", help="only these of its runs")
    experiment.add_argument(
        "--write", type=Path, metavar="FOLDER", help="write NAME.md and NAME.png there"
    )
    experiment.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="total number of a search's trials, including finished ones",
    )
    add_composing(experiment)
    add_verbose(experiment)
    experiment.set_defaults(handler=_experiment)


def _experiment(options: argparse.Namespace) -> None:
    from zerocon.config.experiments import read_experiment

    if options.name is None:
        _list()
        return
    from zerocon.runs.models import kept_between_runs

    with kept_between_runs():
        _do(read_experiment(options.name), options)


def _do(experiment: Experiment, options: argparse.Namespace) -> None:
    if experiment.search is not None:
        _search(experiment, options)
    elif experiment.study is not None:
        _study(experiment, options)
    else:
        _run_all(experiment, options)


def _list() -> None:
    """Print a table of all experiments: name, cost and question."""
    from rich.console import Console

    from zerocon.config.experiments import names, read_experiment
    from zerocon.reports.layout import list_grid
    from zerocon.reports.render import write

    console = Console()
    known = [read_experiment(name) for name in names()]
    rows = [(one.name, one.cost.replace(_MACHINE, ""), one.question) for one in known]
    notes = [f"cost:{_MACHINE}; zerocon experiment NAME runs one"]
    grid = list_grid(("experiment", "cost", "question"), rows, console.width)
    write([replace(grid, notes=notes)], "terminal", console)


def _run_all(experiment: Experiment, options: argparse.Namespace) -> None:
    """Do all listed runs, then print their results side by side."""
    from zerocon.core.checks import ConfigError

    if options.trials is not None:
        raise ConfigError(f"--trials is for searches; {experiment.name} has its runs listed")
    _check_names(experiment, options.only)
    from zerocon.runs.progress import console, loading

    loading(experiment.name)
    runs = experiment.settings(options.overrides, options.only)
    from zerocon.reports.table import print_table
    from zerocon.runs.runner import execute
    from zerocon.runs.tally import left_of, places_of, summary_of

    quiet_models()
    print(f"{experiment.question.strip()}\nExpected: {experiment.expected.strip()}")
    left = left_of(runs)
    console().print(summary_of(left), soft_wrap=True)
    if said := _in_hours(runs):
        print(said, flush=True)
    outcomes = [execute(run, place) for run, place in zip(runs, places_of(left), strict=True)]
    directories = [outcome.directory for outcome in outcomes]
    print_table(directories, metrics=experiment.columns, intervals=experiment.intervals)
    counted = _counted({s.name: s for s in runs}) if experiment.rows else ""
    print(counted, end="")
    if options.write:
        only = ["--only", *options.only] if options.only else []
        command = [options.name, *options.overrides, *only]
        answers = [counted, *_answers(experiment, directories, options.write)]
        _write(experiment, command, [answer for answer in answers if answer], options.write)
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


def _in_hours(runs: Sequence[RunSettings]) -> str:
    """What all the runs take on a GPU, in a line, if the model is Stable Diffusion 1.x."""
    from zerocon.core.cases import DatasetError
    from zerocon.runs.hours import CARDS, UNET_CHOICES, counted_rows, disk_bytes, hours

    if not all(str(s.config["backbone"].get("path")).endswith(UNET_CHOICES) for s in runs):
        return ""
    try:
        cases = [_case_count(settings) for settings in runs]
    except DatasetError:  # finished runs need no dataset; the others will say what is wrong
        return ""
    rows = [counted_rows(settings) for settings in runs]
    passes = sum(n * row for n, row in zip(cases, rows, strict=True))
    each = (
        f"{sum(hours(r, n, card) for r, n in zip(rows, cases, strict=True)):.0f} h on a card of "
        f"{card} ({example})"
        for card, (example, _) in CARDS.items()
    )
    disk = sum(map(disk_bytes, cases)) / 10**9
    return (
        f"In total {counted(sum(cases), 'edit')}, {passes:,} rows through the network: about "
        f"{' or '.join(each)} in half precision, and {disk:.1f} GB on disk (docs/pie_bench.md)"
    )


def _case_count(settings: RunSettings) -> int:
    """The dataset's cases. Their number does not depend on the pictures' size."""
    from zerocon.commands.dataset import native_size

    return len(settings.dataset(pixels=native_size(settings.dataset)).ids)


def _counted(runs: Mapping[str, RunSettings]) -> str:
    """A table of the rows through the network that one edit takes in each run."""
    from rich.console import Console

    from zerocon.reports.layout import Cell, Grid
    from zerocon.reports.render import write
    from zerocon.runs.counting import count_each

    lines = [
        [Cell(name), *(Cell(str(n)) for n in (c.inversion, c.forward, c.backward, c.edit))]
        for name, c in count_each(runs).items()
    ]
    header = ["run", "inversion", "forward", "backward", "edit"]
    note = "rows through the network for one picture; edit: all of them"
    return _printed(lambda: write([Grid("", header, lines, [note])], "markdown", Console()))


def _check_names(experiment: Experiment, only: Sequence[str] | None) -> None:
    from zerocon.core.checks import one_of

    for name in only or ():
        one_of("--only", name, list(experiment.all_runs()))


def _search(experiment: Experiment, options: argparse.Namespace) -> None:
    """Start or continue a search for settings and print the front."""
    from zerocon.core.checks import ConfigError, in_range
    from zerocon.runs.progress import loading

    if options.only:
        raise ConfigError(f"--only names runs; {experiment.name} searches for its own")
    in_range("--trials", options.trials if options.trials is not None else 1, 1)
    loading(experiment.name)
    from zerocon.reports.frontier.search import describe
    from zerocon.runs.search import run_search

    quiet_models()
    print(f"{experiment.question.strip()}\nExpected: {experiment.expected.strip()}")
    found = run_search(experiment, options.overrides, options.trials)
    describe(experiment, found, found.folder / "front.png")
    if options.write:
        number = ["--trials", str(options.trials)] if options.trials else []
        plot = options.write / f"{experiment.name}.png"
        answer = _printed(lambda: describe(experiment, found, plot, form="markdown"))
        parts = [answer, *_shown(plot)]
        _write(experiment, [options.name, *options.overrides, *number], parts, options.write)
    if any(trial.state == "failed" for trial in found.trials):
        sys.exit(1)


def _study(experiment: Experiment, options: argparse.Namespace) -> None:
    """Do what is left of a study, and print its curves."""
    from zerocon.core.checks import ConfigError, one_of
    from zerocon.runs.progress import loading

    study = experiment.study
    assert study is not None
    if options.trials is not None:
        raise ConfigError(f"--trials is for searches; {experiment.name} has study.trials")
    for name in options.only or ():
        one_of("--only", name, list(study.methods))
    loading(experiment.name)
    from zerocon.reports.frontier.study import describe_study, named
    from zerocon.runs.counting import count_each
    from zerocon.runs.study import run_study

    quiet_models()
    print(f"{experiment.question.strip()}\nExpected: {experiment.expected.strip()}")
    studied = run_study(experiment, options.overrides, options.only)
    counted = count_each({named(point): point.settings[0] for point in studied.points})
    rows = {name: count.edit for name, count in counted.items()}
    folder = options.write or studied.points[0].directories[0].parent
    plot = folder / f"{experiment.name}.png"
    folder.mkdir(parents=True, exist_ok=True)
    describe_study(study, studied.points, plot, rows)
    if options.write:
        only = ["--only", *options.only] if options.only else []
        command = [options.name, *options.overrides, *only]
        answer = _printed(
            lambda: describe_study(study, studied.points, plot, rows, form="markdown")
        )
        _write(experiment, command, [answer, *_shown(plot)], options.write)
    if studied.failed:
        sys.exit(1)


def _answers(experiment: Experiment, directories: Sequence[Path], folder: Path) -> list[str]:
    """The experiment's printed results, and its plot."""
    from zerocon.reports.frontier.table import frontier
    from zerocon.reports.runs import find_runs, has_field
    from zerocon.reports.table import print_table

    shown: dict[str, Any] = {"metrics": experiment.columns, "intervals": experiment.intervals}
    table = _printed(lambda: print_table(directories, **shown, form="markdown"))
    if not experiment.plot:
        return [table]
    plot = folder / f"{experiment.name}.png"
    drawn, curves = dict(experiment.plot), experiment.curves()
    if "along" in drawn:  # `--only` may have left out all runs with a curve's setting
        runs = find_runs(directories)
        drawn["along"] = [name for name in drawn["along"] if has_field(runs, name)]
    points = _printed(
        lambda: frontier(directories, **drawn, curve_of=curves, plot=plot, form="markdown")
    )
    return [table, points, *_shown(plot)]


def _shown(plot: Path) -> list[str]:
    return [f"![{plot.stem}]({plot.name})"] if plot.exists() else []


def _write(
    experiment: Experiment, command: Sequence[str], answers: Sequence[str], folder: Path
) -> None:
    """Write the question, the command, and its output."""
    from zerocon.ledger.origin import git_state

    folder.mkdir(parents=True, exist_ok=True)
    revision = str(git_state().get("revision"))[:12]
    parts = [
        f"# {experiment.name}",
        experiment.question.strip(),
        f"Expected: {experiment.expected.strip()}",
        f"`zerocon experiment {' '.join(command)}` at revision {revision} printed:",
        *answers,
    ]
    page = folder / f"{experiment.name}.md"
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")
    print(f"written to {page}")


def _printed(action: Any) -> str:
    caught = io.StringIO()
    with redirect_stdout(caught):
        action()
    return caught.getvalue()
