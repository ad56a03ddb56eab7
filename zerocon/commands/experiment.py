"""`zerocon experiment`: named sets of runs that answer a question."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from zerocon.quiet import quiet_models


def add(commands: Any) -> None:
    experiment = commands.add_parser("experiment", help="named sets of runs that answer a question")
    experiment.add_argument("name", nargs="?", help="default: list them")
    experiment.add_argument("overrides", nargs="*", help="for every run, as for run.py")
    experiment.set_defaults(handler=_experiment)


def _experiment(options: argparse.Namespace) -> None:
    from zerocon.experiments import names, read_experiment

    if options.name is None:
        for name in names():
            print(f"{name}: {read_experiment(name).question.strip()}")
        return
    experiment = read_experiment(options.name)
    runs = experiment.settings(options.overrides)
    from zerocon.reports.measured import print_table
    from zerocon.runs.runner import execute

    quiet_models()
    print(f"{experiment.question.strip()}\nExpected: {experiment.expected.strip()}")
    outcomes = [execute(settings) for settings in runs]
    print_table([outcome.directory for outcome in outcomes])
    if any(outcome.failed for outcome in outcomes):
        sys.exit(1)
