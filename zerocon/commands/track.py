"""`zerocon track sync`: upload runs to a tracker after they ended."""

from __future__ import annotations

import argparse
from typing import Any

from zerocon.commands.options import add_composing


def add(commands: Any) -> None:
    track = commands.add_parser("track", help="upload runs to a tracker after they ended")
    commands = track.add_subparsers(required=True, metavar="command")
    sync = commands.add_parser(
        "sync", help="upload runs from their records, unless already uploaded"
    )
    sync.add_argument("runs", nargs="+", help="runs' directories or folders of runs")
    sync.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SETTING=VALUE",
        help="the tracker, as for run.py; default: tracker=wandb tracker.mode=online",
    )  # fmt: skip
    add_composing(sync)
    sync.set_defaults(handler=_sync)


def _sync(options: argparse.Namespace) -> None:
    from zerocon.config.compose import compose_config, plain
    from zerocon.core.text import printable
    from zerocon.ledger.run_directory import RunDirectory
    from zerocon.reports.runs import find_runs
    from zerocon.runs.mirror import sync

    overrides = options.overrides or ["tracker=wandb", "tracker.mode=online"]
    tracker = plain(compose_config(overrides))["tracker"]
    for run in find_runs(options.runs):
        if RunDirectory(run.directory).status().state in ("partial", "running"):
            print(f"{printable(run.directory)}  is not finished and is left out")
        else:
            sent = sync(run.directory, tracker)
            print(f"{printable(run.directory)}  {'uploaded' if sent else 'already uploaded'}")
