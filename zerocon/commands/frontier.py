"""`zerocon frontier`: trade-off curves of methods."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zerocon.commands.table import add_bootstrap, add_format, add_runs, names


def add(commands: Any) -> None:
    frontier = commands.add_parser(
        "frontier", help="trade-off curves of methods: success against preservation"
    )
    add_runs(frontier)
    add_format(frontier)
    frontier.add_argument("--x", metavar="METRIC", help="preservation; default: lpips_bg")
    frontier.add_argument("--y", metavar="METRIC", help="success; default: edit_success")
    frontier.add_argument(
        "--by", type=names, default=(), metavar="FIELD,…",
        help="one curve per value of these settings; default: method and its non-numeric settings",
    )  # fmt: skip
    frontier.add_argument(
        "--along", type=names, default=(), metavar="FIELD,…",
        help="the setting swept along a curve; of several, the first that varies",
    )  # fmt: skip
    add_bootstrap(frontier)
    frontier.add_argument(
        "--plot", type=Path, default=Path("frontier.png"), help="PNG, PDF or SVG to write"
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
