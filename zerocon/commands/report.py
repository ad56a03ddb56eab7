"""`zerocon report`: write one page about several runs that opens offline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_plugins
from zerocon.commands.table import add_metrics, add_runs, names
from zerocon.core.text import counted, printable

if TYPE_CHECKING:
    from zerocon.reports.page.cases import Lookup
    from zerocon.reports.runs import Run


def add(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="write an HTML page about runs: tables, plots, pictures side by side, costs"
    )
    add_runs(report)
    report.add_argument("--out", type=Path, default=Path("report.html"), help="the page to write")
    report.add_argument("--title", default="", help="default: the runs' names")
    add_metrics(report)
    report.add_argument(
        "--along", type=names, default=(), metavar="FIELD,…",
        help="one or two settings to plot over; default: those that differ, if at most two",
    )  # fmt: skip
    report.add_argument(
        "--dataset-root", metavar="DIR", help="where the dataset is now, for the sources' pictures"
    )
    report.add_argument(
        "--no-sources",
        action="store_true",
        help="do without the dataset: show only what the runs stored",
    )
    report.add_argument(
        "--megabytes", type=float, default=5.0, help="maximum size of the page (default: 5)"
    )
    report.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="also write every plot there, as PNG and SVG"
    )
    add_plugins(report)
    report.set_defaults(handler=_report)


def _report(options: argparse.Namespace) -> None:
    from zerocon.reports.names import named
    from zerocon.reports.page.report import write_report
    from zerocon.reports.runs import find_runs

    runs = named(find_runs(options.runs))
    lookups, said = _lookups(runs, options)
    size = write_report(
        options.out,
        runs,
        metrics=options.metrics,
        along=options.along,
        title=options.title,
        lookups=lookups,
        said=said,
        megabytes=options.megabytes,
        plots_folder=options.plots,
    )
    for note in said:
        print(printable(note))
    print(printable(options.out) + f": {counted(len(runs), 'run')}, {size / 1e6:.1f} MB")


def _lookups(
    runs: Sequence[Run], options: argparse.Namespace
) -> tuple[dict[str, Lookup], list[str]]:
    """For each dataset, a function that finds its pictures, or why they are not available."""
    from zerocon.core.cases import DatasetError
    from zerocon.core.checks import ConfigError
    from zerocon.reports.page.cases import dataset_of
    from zerocon.runs.requests import requests_of

    if options.no_sources:
        return {}, []
    overrides = [f"dataset.root={options.dataset_root}"] if options.dataset_root else []
    lookups: dict[str, Lookup] = {}
    problems: dict[str, str] = {}
    for run in runs:
        dataset = dataset_of(run)
        if dataset in lookups:
            continue
        try:
            lookups[dataset] = requests_of(run.directory, overrides)
        except (ConfigError, DatasetError, OSError) as error:
            problems.setdefault(dataset, f"without the pictures of {dataset}: {error}")
    return lookups, [said for dataset, said in problems.items() if dataset not in lookups]
