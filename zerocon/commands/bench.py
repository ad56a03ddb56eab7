"""`zerocon bench`: what the methods cost.

`--count`: each method's network evaluations for one picture. `--peers`: times beside diffusers'
pipelines. `--profile`: where the time of a run goes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_composing, add_verbose
from zerocon.core.quiet import quiet_models

if TYPE_CHECKING:
    from zerocon.runs.counting import Rows
    from zerocon.runs.peers import Found

# Each of T steps of pix2pix-zero's published pipeline, at guidance > 1: the reference pass (2
# rows), the pass of its losses (2 forward, 2 backward) and the noise after the update (2).
PUBLISHED = "pix2pix-zero's published pipeline, 50 steps"


def published_pix2pix_zero(steps: int) -> Rows:
    from zerocon.runs.counting import Rows

    return Rows(inversion=steps, forward=6 * steps, backward=2 * steps)


def add(commands: Any) -> None:
    bench = commands.add_parser("bench", help="measure what the methods cost")
    which = bench.add_mutually_exclusive_group(required=True)
    which.add_argument("--count", action="store_true", help="count rows through the network")
    which.add_argument(
        "--peers", action="store_true", help="time edits beside diffusers' pipelines"
    )
    which.add_argument("--profile", action="store_true", help="where the time of a run goes")
    bench.add_argument(
        "names",
        nargs="*",
        help="names in conf/method or (published set-ups) conf/experiment; default: all methods; "
        "with --peers: pix2pix_zero, zerocon, sdedit, sdedit_flow; default: all; with --profile: "
        "default: zerocon",
    )
    bench.add_argument("--steps", type=int, default=20, help="with --peers: of every edit")
    bench.add_argument(
        "--batches", type=int, nargs="+", default=[1, 8], help="with --peers: pictures at a time"
    )
    bench.add_argument("--repeats", type=int, default=3, help="with --peers: of every time")
    bench.add_argument("--out", type=Path, metavar="FILE", help="write the numbers there, as JSON")
    bench.add_argument("--overrides", nargs="*", default=[], help="as for run.py")
    add_composing(bench)
    add_verbose(bench)
    bench.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> None:
    from zerocon.runs.progress import loading

    loading("bench")
    ways = ((options.peers, _peers), (options.profile, _profile), (options.count, _count))
    next(way for asked, way in ways if asked)(options)


def _profile(options: argparse.Namespace) -> None:
    from rich.console import Console

    from zerocon.config.places import CONF
    from zerocon.config.settings import compose_settings
    from zerocon.core.checks import one_of
    from zerocon.reports.layout import Cell, Grid
    from zerocon.reports.render import write
    from zerocon.runs.profiling import OWN, profile

    methods, published = (_names(CONF / group) for group in ("method", "experiment"))
    said: dict[str, Any] = {}
    for name in options.names or ["zerocon"]:
        one_of("name", name, [*methods, *published])
        chosen = ["dataset.limit=16", "method.steps=20", _chosen(name, methods)]
        settings = compose_settings([*chosen, *options.overrides])
        quiet_models()
        found = profile(settings)
        said[name] = found.said()
        lines = [
            [
                Cell(section),
                Cell(f"{1000 * seconds / found.cases:.1f}"),
                Cell(f"{100 * seconds / found.total:.1f} %"),
            ]
            for section, seconds in found.seconds.items()
        ]
        where = found.machine
        note = (
            f"{found.cases} cases; {where['clock']} time on {where['device']}, {where['threads']} "
            f"of {where['cores']} threads; loading, once: {found.loading:.1f} s; "
            f"neither models nor metrics ({' and '.join(OWN)}): "
            f"{100 * found.own / found.total:.1f} %"
        )
        write([Grid("", [name, "ms a case", "share"], lines, [note])], "terminal", Console())
    _write_json(said, options.out)


def _peers(options: argparse.Namespace) -> None:
    from zerocon.core.checks import in_range, one_of
    from zerocon.runs.peers import CONTESTS, measure

    for name in options.names:
        one_of("name", name, list(CONTESTS))
    in_range("--steps", options.steps, 1, 1000)
    in_range("--repeats", options.repeats, 1)
    for batch in options.batches:
        in_range("--batches", batch, 1)
    quiet_models()
    more = options.overrides
    found = measure(
        options.names or list(CONTESTS), options.steps, options.batches, options.repeats, more
    )
    _print_peers(found)
    _write_json(found.said(), options.out)


def _write_json(said: dict[str, Any], file: Path | None) -> None:
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(said, indent=1) + "\n", "utf-8")


def _print_peers(found: Found) -> None:
    from rich.console import Console

    from zerocon.reports.layout import Cell, Grid
    from zerocon.reports.render import write

    lines = [
        [
            Cell(one.name),
            Cell(str(one.ours.pictures)),
            Cell(f"{1000 * one.ours.seconds:.0f}"),
            Cell(f"{1000 * one.theirs.seconds:.0f}"),
            Cell(f"{one.ratio:.2f}"),
            Cell("{:.2f} to {:.2f}".format(*one.spread)),
            Cell(f"{one.floor:.2f}"),
            *(
                Cell(f"{side.forward / side.pictures:g} + {side.backward / side.pictures:g}")
                for side in (one.ours, one.theirs)
            ),
            *(Cell(f"{side.peak_bytes / 2**20:.1f}") for side in (one.ours, one.theirs)),
        ]
        for one in found.faced
    ]
    header = ["edit", "pictures", "ms", "theirs", "ratio", "spread", "floor", "rows", "theirs",
              "MiB", "theirs"]  # fmt: skip
    said = found.machine
    about = (
        "by the picture, from picture to picture, inversion included; theirs: diffusers' pipeline "
        "(pix2pix-zero: one picture at a time); ratio: of the medians, with the smallest and the "
        "largest of a repeat; floor: the ratio if all of our products, convolutions and attention "
        "were as fast as a large matrix product, and nothing else took time; rows: forward + back; "
        "MiB: the most that tensors took"
    )
    where = (
        f"{found.settings['steps']} steps, {found.settings['repeats']} repeats; {said['device']}, "
        f"{said['dtype']}, {said['threads']} of {said['cores']} threads, {said['clock']} time, "
        f"a matrix product {found.rate / 1e9:.0f} GFLOP/s, "
        f"torch {said['versions']['torch']}, diffusers {said['versions']['diffusers']}"
    )
    write([Grid("", header, lines, [about, where])], "terminal", Console())


def _count(options: argparse.Namespace) -> None:
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
