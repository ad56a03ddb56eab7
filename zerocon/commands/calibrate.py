"""`zerocon calibrate`: how well metrics predict the truth, where it is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zerocon.commands.table import add_bootstrap, add_choices, add_runs, names


def add(commands: Any) -> None:
    calibrate = commands.add_parser(
        "calibrate", help="how well each metric predicts true success and the true edit"
    )
    add_runs(calibrate)
    add_choices(calibrate)
    calibrate.add_argument(
        "--by", type=names, default=(), metavar="FIELD,…",
        help="rank the values of these settings, such as method, instead of single runs",
    )  # fmt: skip
    calibrate.add_argument(
        "--per-type", action="store_true", help="also calibrate within each edit type"
    )
    add_bootstrap(calibrate)
    calibrate.add_argument("--plot", type=Path, metavar="FILE", help="PNG, PDF or SVG to write")
    calibrate.set_defaults(handler=_calibrate, resamples=2_000)


def _calibrate(options: argparse.Namespace) -> None:
    from zerocon.reports.calibration.table import calibrate

    runs: list[str | Path] = list(options.runs)
    calibrate(
        runs,
        metrics=options.metrics,
        by=options.by,
        per_type=options.per_type,
        intersection=options.intersection,
        resamples=options.resamples,
        seed=options.seed,
        plot=options.plot,
        form=options.format,
    )
