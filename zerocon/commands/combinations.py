"""`zerocon combinations`: which methods, inversions and directions make sense together."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    command = commands.add_parser(
        "combinations", help="which methods, inversions and directions make sense together"
    )
    command.add_argument("--why", action="store_true", help="and why the others don't")
    command.set_defaults(handler=_combinations)


def _combinations(options: argparse.Namespace) -> None:
    from zerocon.config.compatibility import every_method, refusals, tables

    rows = every_method()
    print(tables(rows))
    if options.why:
        print("", *refusals(rows), sep="\n")
