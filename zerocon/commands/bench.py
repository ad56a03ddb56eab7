"""`zerocon bench --count`: count each method's network evaluations for one picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerocon.commands.options import add_composing
from zerocon.core.quiet import quiet_models

if TYPE_CHECKING:
    from zerocon.backbones.base import Backbone, Evaluations

# Each of T steps of pix2pix-zero's published pipeline, at guidance > 1: the reference pass (2
# rows), the pass of its losses (2 forward, 2 backward) and the noise after the update (2).
PUBLISHED = "pix2pix-zero's published pipeline, 50 steps"


@dataclass(frozen=True)
class Cost:
    """Rows through the network (single-case evaluations), of the inversion and of the method."""

    inversion: int
    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Rows without the inversion. Backward to the latent costs about as much as forward."""
        return self.forward + self.backward

    @property
    def edit(self) -> int:
        """Rows of one edit, including the inversion."""
        return self.inversion + self.total


def published_pix2pix_zero(steps: int) -> Cost:
    return Cost(inversion=steps, forward=6 * steps, backward=2 * steps)


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
    bench.set_defaults(handler=_bench)


def _bench(options: argparse.Namespace) -> None:
    from zerocon.config.places import CONF
    from zerocon.config.settings import compose_settings
    from zerocon.core.checks import one_of

    methods, published = (_names(CONF / group) for group in ("method", "experiment"))
    for name in options.names:
        one_of("name", name, [*methods, *published])
    settings = {
        name: compose_settings([_chosen(name, methods), *options.overrides], worlds="edit")
        for name in options.names or methods
    }
    quiet_models()
    backbone = next(iter(settings.values())).backbone.load()
    costs = {name: counted(chosen, backbone) for name, chosen in settings.items()}
    costs[PUBLISHED] = published_pix2pix_zero(50)
    _print(costs)


def _names(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("*.yaml"))


def _chosen(name: str, methods: Sequence[str]) -> str:
    return f"method={name}" if name in methods else f"+experiment={name}"


def counted(settings: Any, backbone: Backbone) -> Cost:
    """Edit one picture and count."""
    import torch

    from zerocon.core.cases import Case
    from zerocon.core.conditions import Conditions, Draws
    from zerocon.core.prompts import words_of

    image = torch.full((3, backbone.side, backbone.side), 0.5)
    case = Case("a", image, "a red circle", "a blue circle", blend_words=("red", "blue"))
    source, target, negative = (
        backbone.embed([text]) for text in (case.source_prompt, case.target_prompt, "")
    )
    conditions = Conditions(source, target, negative, [words_of(backbone, case)])
    draws = Draws(settings.seed, [case.id])
    clean = backbone.encode(image[None])
    start = _now(backbone)
    trajectory = settings.inversion(backbone, clean, conditions, settings.method.steps, draws)
    between = _now(backbone)
    settings.method(backbone, trajectory, conditions, draws)
    end = _now(backbone)
    return Cost(sum(between) - sum(start), end[0] - between[0], end[1] - between[1])


def _now(backbone: Backbone) -> tuple[int, int]:
    evaluations: Evaluations = backbone.evaluations
    return evaluations.forward, evaluations.backward


def _print(costs: dict[str, Cost]) -> None:
    from rich.console import Console

    from zerocon.reports.layout import Cell, Grid
    from zerocon.reports.render import write

    yardstick = costs[PUBLISHED].total
    rows = [
        [
            Cell(name),
            *(Cell(str(n)) for n in (cost.inversion, cost.forward, cost.backward, cost.edit)),
            Cell(str(cost.total)),
            Cell(f"{cost.total / yardstick:.2f}"),
        ]
        for name, cost in costs.items()
    ]
    header = ["method", "inversion", "forward", "backward", "edit", "sum", "of published"]
    note = (
        "rows through the network for one picture; edit: all rows; sum: forward and backward of "
        "the method, without the inversion; of published: sum as a share of the last line's sum"
    )
    write([Grid("", header, rows, [note])], "terminal", Console())
