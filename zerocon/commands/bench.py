"""`zerocon bench --count`: count each method's network evaluations for one picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_composing, add_verbose
from zerocon.core.quiet import quiet_models

if TYPE_CHECKING:
    from zerocon.runs.counting import Rows

# Each of T steps of pix2pix-zero's published pipeline, at guidance > 1: the reference pass (2
# rows), the pass of its losses (2 forward, 2 backward) and the noise after the update (2).
PUBLISHED = "pix2pix-zero's published pipeline, 50 steps"


def published_pix2pix_zero(steps: int) -> Rows:
    from zerocon.runs.counting import Rows

    return Rows(inversion=steps, forward=6 * steps, backward=2 * steps)


def add(commands: Any) -> None:
    bench = commands.add_parser("bench", help="count what the methods cost")
    bench.add_argument(
        "--count", action="store_true", required=True, help="count rows through the network"
    )
    bench.add_argument(
        "names",
        nargs="*",
        help="names in conf/method or (published set-ups) conf/experiment; default: all methods",
    )
    bench.add_argument("--overrides", nargs="*", default=[], help="as for run.py")
    add_composing(bench)
    add_verbose(bench)
    bench.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> None:
    from zerocon.config.places import CONF
    from zerocon.config.settings import compose_settings
    from zerocon.core.checks import one_of
    from zerocon.runs.counting import count_each

    methods, published = (_names(CONF / group) for group in ("method", "experiment"))
    for name in options.names:
        one_of("name", name, [*methods, *published])
    settings = {
        name: compose_settings([_chosen(name, methods), *options.overrides], worlds="edit")
        for name in options.names or methods
    }
    quiet_models()
    _print({**count_each(settings), PUBLISHED: published_pix2pix_zero(50)})


def _names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _chosen(name: str, methods: Sequence[str]) -> str:
    return f"method={name}" if name in methods else f"+experiment={name}"


def _print(counts: dict[str, Rows]) -> None:
    from rich.console import Console

    from zerocon.reports.layout import Cell, Grid
    from zerocon.reports.render import write

    yardstick = counts[PUBLISHED].method
    lines = [
        [
            Cell(name),
            *(Cell(str(n)) for n in (rows.inversion, rows.forward, rows.backward, rows.edit)),
            Cell(str(rows.method)),
            Cell(f"{rows.method / yardstick:.2f}"),
        ]
        for name, rows in counts.items()
    ]
    header = ["method", "inversion", "forward", "backward", "edit", "sum", "of published"]
    note = (
        "rows through the network for one picture; edit: all rows; sum: forward and backward of "
        "the method, without the inversion; of published: sum as a share of the last line's sum"
    )
    write([Grid("", header, lines, [note])], "terminal", Console())
