"""`zerocon runs`: list runs with their state; remove, export or rename them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from zerocon.core.text import counted, printable

STATES = ("done", "failed", "partial", "running")


def add(commands: Any) -> None:
    runs = commands.add_parser("runs", help="list runs and their progress")
    runs.set_defaults(handler=_list)
    _choices(runs)
    commands = runs.add_subparsers(metavar="command")
    remove = commands.add_parser("remove", help="delete the chosen runs' directories")
    _choices(remove)
    remove.add_argument(
        "--yes", action="store_true", help="delete them; without this they are only listed"
    )
    remove.set_defaults(handler=_remove)
    export = commands.add_parser("export", help="write the chosen runs' records as Parquet")
    _choices(export)
    export.add_argument("--out", type=Path, required=True, help="the .parquet file to write")
    export.set_defaults(handler=_export)
    migrate = commands.add_parser(
        "migrate", help="rename runs of older versions, so that their commands find them again"
    )
    migrate.add_argument("root", nargs="?", default="outputs", help="a folder of runs")
    migrate.set_defaults(handler=_migrate)


def _choices(command: Any) -> None:
    command.add_argument("--root", default="outputs", help="a folder of runs; default: outputs")
    command.add_argument("--state", choices=STATES, help="only runs in this state")
    command.add_argument(
        "--where", action="append", default=[], metavar="FIELD=VALUE",
        help="only runs with this setting, such as method=DDIM or method.steps=50",
    )  # fmt: skip


def _list(options: argparse.Namespace) -> None:
    for run, status in _chosen(options):
        print(f"{printable(run.directory)}  {status.words()}")


def _remove(options: argparse.Namespace) -> None:
    from zerocon.runs.manage import remove

    for run, status in _chosen(options):
        if status.state == "running":
            print(f"{printable(run.directory)}  is running and is not removed")
        elif options.yes:
            remove(run.directory)
            print(f"{printable(run.directory)}  removed")
        else:
            print(f"{printable(run.directory)}  would be removed; {status.words()}")
    if not options.yes:
        print("Nothing was removed: use --yes.", file=sys.stderr)


def _export(options: argparse.Namespace) -> None:
    from zerocon.runs.manage import export

    directories = [run.directory for run, _ in _chosen(options)]
    count = export(directories, options.out)
    size = f"{counted(count, 'record')} of {counted(len(directories), 'run')}"
    print(f"{printable(options.out)}: {size}")


def _migrate(options: argparse.Namespace) -> None:
    from zerocon.runs.migrate import migrate

    count = 0
    for renamed in migrate(options.root):
        print(renamed.words())
        count += not renamed.problem
    print(f"{counted(count, 'run')} renamed.")


def _chosen(options: argparse.Namespace) -> Any:
    from zerocon.runs.manage import choose

    return choose(options.root, state=options.state, where=options.where)
