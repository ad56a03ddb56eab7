"""`zerocon experiment`: named sets of runs that answer a question."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.quiet import quiet_models

if TYPE_CHECKING:
    from zerocon.experiments import Experiment


def add(commands: Any) -> None:
    experiment = commands.add_parser("experiment", help="named sets of runs that answer a question")
    experiment.add_argument("name", nargs="?", help="default: list them")
    experiment.add_argument("overrides", nargs="*", help="for every run, as for run.py")
    experiment.add_argument("--only", nargs="+", metavar="RUN", help="only these of its runs")
    experiment.add_argument(
        "--write", type=Path, metavar="FOLDER", help="leave NAME.md and NAME.png there"
    )
    experiment.set_defaults(handler=_experiment)


def _experiment(options: argparse.Namespace) -> None:
    from zerocon.experiments import names, read_experiment

    if options.name is None:
        for name in names():
            experiment = read_experiment(name)
            print(f"{name} ({experiment.cost.strip()}): {experiment.question.strip()}")
        return
    experiment = read_experiment(options.name)
    _check_names(experiment, options.only)
    runs = experiment.settings(options.overrides, options.only)
    from zerocon.reports.measured import print_table
    from zerocon.runs.runner import execute

    quiet_models()
    print(f"{experiment.question.strip()}\nExpected: {experiment.expected.strip()}")
    outcomes = [execute(settings) for settings in runs]
    directories = [outcome.directory for outcome in outcomes]
    print_table(directories, metrics=experiment.columns)
    if options.write:
        only = ["--only", *options.only] if options.only else []
        command = [options.name, *options.overrides, *only]
        _write(experiment, command, directories, options.write)
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)


def _check_names(experiment: Experiment, only: Sequence[str] | None) -> None:
    from zerocon.checks import one_of

    for name in only or ():
        one_of("--only", name, list(experiment.all_runs()))


def _write(
    experiment: Experiment, command: Sequence[str], directories: Sequence[Path], folder: Path
) -> None:
    """What was asked, the command, what it printed, and the plot."""
    from zerocon.reports.frontier_table import frontier
    from zerocon.reports.measured import print_table
    from zerocon.runs.provenance import git_state

    folder.mkdir(parents=True, exist_ok=True)
    revision = str(git_state().get("revision"))[:12]
    parts = [
        f"# {experiment.name}",
        experiment.question.strip(),
        f"Expected: {experiment.expected.strip()}",
        f"`zerocon experiment {' '.join(command)}` at revision {revision} printed:",
        _printed(lambda: print_table(directories, metrics=experiment.columns, form="markdown")),
    ]
    if experiment.plot:
        plot = folder / f"{experiment.name}.png"
        parts.append(
            _printed(lambda: frontier(directories, **experiment.plot, plot=plot, form="markdown"))
        )
        parts.append(f"![{experiment.name}]({plot.name})")
    page = folder / f"{experiment.name}.md"
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", "utf-8")
    print(f"written to {page}")


def _printed(action: Any) -> str:
    caught = io.StringIO()
    with redirect_stdout(caught):
        action()
    return caught.getvalue()
