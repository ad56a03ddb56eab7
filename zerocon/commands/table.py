"""`zerocon table`: print the results of runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    table = commands.add_parser("table", help="print the results of runs side by side")
    add_runs(table)
    table.add_argument(
        "--all", action="store_true", dest="every",
        help="show every metric, also where a narrow terminal has room for the key metrics only",
    )  # fmt: skip
    table.add_argument("--per-type", action="store_true", help="add a table for each edit type")
    table.add_argument(
        "--intervals", action="store_true",
        help="show each mean's 95%% bootstrap interval instead of its standard error",
    )  # fmt: skip
    add_choices(table)
    table.add_argument(
        "--rows", type=names, default=(), metavar="FIELD,…",
        help="one row per value of these settings, such as method.guidance, instead of per run",
    )  # fmt: skip
    table.add_argument(
        "--published", metavar="SET", help="add published numbers below: pie_bench, pix2pix_zero, …"
    )
    table.set_defaults(handler=_table)


def add_runs(command: Any) -> None:
    command.add_argument(
        "runs", nargs="+", help="run directories, folders of runs, or patterns like 'outputs/**'"
    )


def add_choices(command: Any) -> None:
    add_metrics(command)
    add_format(command)


def add_metrics(command: Any) -> None:
    command.add_argument(
        "--metrics", type=names, default=(), metavar="NAME,…", help="only these columns"
    )


def add_format(command: Any, *, csv: bool = True) -> None:
    command.add_argument(
        "--format", default="terminal", metavar="FORM",
        help=f"output format: terminal, markdown, {'csv, ' if csv else ''}latex (booktabs) or html",
    )  # fmt: skip
    command.add_argument(
        "--markdown", action="store_const", const="markdown", dest="format",
        help="short for --format markdown",
    )  # fmt: skip


def add_bootstrap(command: Any) -> None:
    command.add_argument(
        "--intersection", action="store_true", help="compare only the cases that all runs have"
    )
    command.add_argument(
        "--resamples", type=int, default=10_000, help="number of bootstrap resamples"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _table(options: argparse.Namespace) -> None:
    from zerocon.reports.table import print_table

    runs: list[str | Path] = list(options.runs)
    print_table(
        runs,
        rows=options.rows,
        metrics=options.metrics,
        per_type=options.per_type,
        intervals=options.intervals,
        published=options.published,
        form=options.format,
        every=options.every,
    )
