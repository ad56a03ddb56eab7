"""`zerocon table`: the results of runs, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    table = commands.add_parser("table", help="the results of runs, side by side")
    table.add_argument("runs", nargs="+", type=Path, help="run directories")
    table.add_argument("--per-type", action="store_true", help="one table for each edit type, too")
    table.add_argument("--markdown", action="store_true", help="print Markdown")
    table.set_defaults(handler=_table)


def _table(options: argparse.Namespace) -> None:
    from zerocon.runs.results import print_table

    print_table(options.runs, per_type=options.per_type, markdown=options.markdown)
