"""`zerocon combinations`: list which methods, inversions and directions are compatible."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    command = commands.add_parser(
        "combinations", help="list which methods, inversions and directions are compatible"
    )
    command.add_argument("--why", action="store_true", help="also say why the others are not")
    command.set_defaults(handler=_combinations)


def _combinations(options: argparse.Namespace) -> None:
    from zerocon.config.compatibility import every_method, refusals, tables

    rows = every_method()
    print(tables(rows))
    if options.why:
        print("", *refusals(rows), sep="\n")
