"""`zerocon reproduce`: check that a run can be reproduced."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_plugins
from zerocon.core.text import counted, printable

if TYPE_CHECKING:
    from rich.table import Table

    from zerocon.runs.reproduce import Again, Reproduction


def add(commands: Any) -> None:
    reproduce = commands.add_parser(
        "reproduce", help="edit some of a run's cases again from its stored config, and compare"
    )
    reproduce.add_argument("run", type=Path, help="a run's directory")
    reproduce.add_argument(
        "overrides", nargs="*", help="where and how to compute, such as backbone.device=…"
    )
    reproduce.add_argument(
        "--cases", type=int, default=5, help="number of cases (default: %(default)s)"
    )
    reproduce.add_argument(
        "--psnr",
        type=float,
        default=40.0,
        help="PSNR in dB from which a picture counts as reproduced (default: %(default)s)",
    )
    add_plugins(reproduce)
    reproduce.set_defaults(handler=_reproduce)


def _reproduce(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zerocon.core.quiet import quiet_models
    from zerocon.runs.reproduce import reproduce

    console = Console()
    quiet_models()
    found = reproduce(options.run, options.overrides, cases=options.cases)
    for change in found.changed:
        console.print(printable(f"changed since the run: {change}"), highlight=False, markup=False)
    for problem in found.problems:
        console.print(printable(problem), highlight=False, markup=False)
    console.print(_pictures(found.cases))
    console.print(_numbers(found.cases))
    console.print(_in_words(found, options.psnr), highlight=False)
    if found.problems or any(case.psnr < options.psnr for case in found.cases):
        sys.exit(1)


def _pictures(cases: Sequence[Again]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("case", "pixels that differ", "largest, of 255", "PSNR, dB")
    for case in cases:
        table.add_row(
            escape(printable(case.case)),
            f"{case.differing:.2%}",
            str(case.largest),
            f"{case.psnr:.1f}",
        )
    return table


def _numbers(cases: Sequence[Again]) -> Table:
    """Each metric's means over the cases, and the largest difference of a case."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("metric", "recorded, mean", "now, mean", "largest difference")
    for name in cases[0].metrics if cases else ():
        pairs = [case.metrics[name] for case in cases]
        finite = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
        if finite:
            before, after = (sum(values) / len(finite) for values in zip(*finite, strict=True))
            most = max(abs(a - b) for a, b in finite)
            table.add_row(escape(printable(name)), f"{before:.6g}", f"{after:.6g}", f"{most:.2g}")
    return table


def _in_words(found: Reproduction, least: float) -> str:
    equal = sum(case.largest == 0 for case in found.cases)
    close = sum(case.psnr >= least for case in found.cases)
    return (
        f"{counted(len(found.cases), 'case')} edited again: {equal} equal to the bit, "
        f"{close} at {least:g} dB or more."
    )
