"""`zerocon combinations`: list which methods, inversions and directions are compatible."""

from __future__ import annotations

import argparse
from typing import Any

from zerocon.commands.table import add_format


def add(commands: Any) -> None:
    command = commands.add_parser(
        "combinations", help="list which methods, inversions and directions are compatible"
    )
    command.add_argument("--why", action="store_true", help="also say why the others are not")
    add_format(command, csv=False)
    command.set_defaults(handler=_combinations)


def _combinations(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zerocon.config.compatibility import every_method, pairs, refusals
    from zerocon.core.checks import one_of
    from zerocon.reports.combinations import combination_grids
    from zerocon.reports.render import FORMATS, write

    one_of("--format", options.format, ["terminal", *FORMATS])
    rows = every_method()
    grids = combination_grids(pairs(rows), terminal=options.format == "terminal")
    write(grids, options.format, Console())
    if options.why:
        print("", *refusals(rows), sep="\n")
