"""`zerocon frontier`: methods as curves over their strength."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zerocon.commands.table import add_bootstrap, add_format, add_runs, names


def add(commands: Any) -> None:
    frontier = commands.add_parser(
        "frontier", help="methods as curves over their strength: success against preservation"
    )
    add_runs(frontier)
    add_format(frontier)
    frontier.add_argument("--x", metavar="METRIC", help="preservation; default: lpips_bg")
    frontier.add_argument("--y", metavar="METRIC", help="success; default: edit_success")
    frontier.add_argument(
        "--by", type=names, default=(), metavar="FIELD,…",
        help="a curve for each value of these settings; default: method and its words",
    )  # fmt: skip
    frontier.add_argument(
        "--along", type=names, default=(), metavar="FIELD,…",
        help="the setting that a curve goes along; of several, the first that varies in it",
    )  # fmt: skip
    add_bootstrap(frontier)
    frontier.add_argument(
        "--plot", type=Path, default=Path("frontier.png"), help="a PNG, PDF or SVG"
    )
    frontier.set_defaults(handler=_frontier)


def _frontier(options: argparse.Namespace) -> None:
    from zerocon.reports.frontier.table import frontier

    runs: list[str | Path] = list(options.runs)
    frontier(
        runs,
        x=options.x,
        y=options.y,
        by=options.by,
        along=options.along,
        intersection=options.intersection,
        resamples=options.resamples,
        seed=options.seed,
        plot=options.plot,
        form=options.format,
    )
