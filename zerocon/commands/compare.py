"""`zerocon compare`: test whether runs differ."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zerocon.commands.table import add_bootstrap, add_choices, add_runs


def add(commands: Any) -> None:
    compare = commands.add_parser(
        "compare", help="test, case by case, whether runs over the same cases differ"
    )
    add_runs(compare)
    add_choices(compare)
    compare.add_argument(
        "--per-type", action="store_true", help="also compare within each edit type"
    )
    compare.add_argument(
        "--margin",
        nargs="+",
        default=[],
        metavar="METRIC=SIZE",
        help="also say whether the runs are worse by no more than this, with 95 %% confidence: "
        "edit_success=0.05 lpips_bg=10%%",
    )
    add_bootstrap(compare)
    compare.set_defaults(handler=_compare)


def _compare(options: argparse.Namespace) -> None:
    from zerocon.reports.comparison import compare

    runs: list[str | Path] = list(options.runs)
    compare(
        runs,
        metrics=options.metrics,
        per_type=options.per_type,
        intersection=options.intersection,
        resamples=options.resamples,
        seed=options.seed,
        form=options.format,
        margins=options.margin,
    )
