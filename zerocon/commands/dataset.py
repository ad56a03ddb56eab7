"""`zerocon dataset check`: check that every case of a dataset is usable."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_composing
from zerocon.core.text import printable, printable_lines

if TYPE_CHECKING:
    from zerocon.core.size import Size


def add(commands: Any) -> None:
    dataset = commands.add_parser("dataset", help="check a dataset")
    commands = dataset.add_subparsers(required=True, metavar="command")
    check = commands.add_parser("check", help="load every case and list the problems")
    check.add_argument(
        "overrides", nargs="+", help="as for run.py: dataset=pie_bench dataset.root=…"
    )
    add_size(check)
    add_composing(check)
    check.set_defaults(handler=_check)


def _check(options: argparse.Namespace) -> None:
    """Exit status 0: no problems; 1: some cases can't be used; 2: the dataset can't."""
    from zerocon.config.bind import build
    from zerocon.config.compose import compose_config, plain
    from zerocon.datasets.check import Report, check_cases

    only(options.overrides, ("dataset",))
    make = build(plain(compose_config(options.overrides)), "dataset", later=("pixels",))
    dataset = make(pixels=asked_size(options, make))
    report = Report()
    for line in check_cases(dataset, report):
        print(printable(line), flush=True)
    print(printable_lines(f"{dataset.name}: {report.summary()}"))
    sys.exit(1 if report.broken else 0)


def add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--side", type=int, help="pixels; default: the dataset's native size")
    parser.add_argument("--height", type=int, help="pixels, with --width instead of --side")
    parser.add_argument("--width", type=int, help="pixels, with --height instead of --side")


def asked_size(options: argparse.Namespace, make: Any) -> Size:
    """The size of pictures that the options ask for, or else the dataset's native one."""
    from zerocon.core.checks import in_range
    from zerocon.core.size import chosen_size

    sides = options.side, options.height, options.width
    for name, value in zip(("--side", "--height", "--width"), sides, strict=True):
        if value is not None:
            in_range(name, value, 1)
    return chosen_size(*sides, native_size(make), "--")


def native_size(make: Any) -> Size:
    """The native size of the dataset's pictures, from its class."""
    from zerocon.core.size import Size

    return Size.square(int(getattr(make.func, "native_side", 512)))


def only(overrides: list[str], groups: tuple[str, ...]) -> None:
    """Refuse overrides that would have no effect here."""
    from zerocon.core.checks import ConfigError

    for override in overrides:
        name = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if name not in groups and not override.startswith("hydra.searchpath="):
            raise ConfigError(
                f"{override!r} has no effect here; only settings of {', '.join(groups)} have"
            )
