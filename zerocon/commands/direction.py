"""`zerocon direction`: compute an edit direction and describe it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from zerocon.commands.options import add_composing
from zerocon.core.checks import ConfigError
from zerocon.core.quiet import quiet_models

if TYPE_CHECKING:
    from zerocon.backbones.base import Backbone
    from zerocon.core.cases import Case
    from zerocon.directions.base import Direction
    from zerocon.directions.inspect import Inspected

GROUPS = ("direction", "backbone")
SHOWN = 3  # sentences of each set


def add(commands: Any) -> None:
    direction = commands.add_parser(
        "direction", help="compute an edit direction and show how far it moves the condition"
    )
    direction.add_argument("--image", type=Path, help="the picture, for direction=caption")
    direction.add_argument("--out", type=Path, help="file to write it to, for direction=file")
    direction.add_argument("source", help='the source prompt; "" to use the caption instead')
    direction.add_argument("target", help="the target prompt")
    direction.add_argument(
        "overrides", nargs="*", help="as for run.py, such as direction=sentences backbone=shapes"
    )
    add_composing(direction)
    direction.set_defaults(handler=_direction)


def _direction(options: argparse.Namespace) -> None:
    from zerocon.config.bind import build
    from zerocon.config.compose import compose_config, plain
    from zerocon.config.settings import worlds_mixed_in
    from zerocon.core.cases import CaseError
    from zerocon.core.limits import DEFAULT, GIB
    from zerocon.directions.inspect import direction_file, inspected
    from zerocon.ledger.atomic import write_atomic
    from zerocon.ledger.cache import memory_of

    config = plain(compose_config([*_without_a_picture(options), *options.overrides]))
    check_effect(options.overrides)
    quiet_models()
    worlds_mixed_in(config, scored=False)
    direction = build(config, "direction")()
    backbone = build(config, "backbone")().load()
    try:
        case = _case(backbone, direction, options)
        found = inspected(backbone, direction, case, memory_of(DEFAULT * GIB))
    except CaseError as error:  # no other case could still succeed
        raise ConfigError(str(error)) from error
    print_report(found)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.out, direction_file(found, backbone.fingerprint))
        print(f"written to {options.out}: direction=file direction.path={options.out}")


def _without_a_picture(options: argparse.Namespace) -> list[str]:
    """The direction between two prompts, if there is no picture and no direction was chosen."""
    chosen = any(o.startswith("direction=") for o in options.overrides)
    return [] if chosen or options.image is not None else ["direction=sentences"]


def check_effect(overrides: Sequence[str]) -> None:
    """Refuse settings that do not affect a direction."""
    for override in overrides:
        group = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if group not in GROUPS:
            raise ConfigError(
                f"{override} has no effect on a direction; only {' and '.join(GROUPS)} have"
            )


def _case(backbone: Backbone, direction: Direction, options: argparse.Namespace) -> Case:
    import torch

    from zerocon.core.cases import Case
    from zerocon.datasets.images import read_image
    from zerocon.directions.base import DescribesSources

    image, prompts = options.image, (options.source, options.target)
    if image is not None:
        pixels, notes = read_image(Path(image.name), image.parent, backbone.size)
        return Case("command line", pixels, *prompts, notes=notes)
    if isinstance(direction, DescribesSources):
        raise ConfigError("direction=caption needs the picture: give it as --image FILE")
    return Case("command line", torch.zeros(3, *backbone.size), *prompts)


def print_report(found: Inspected, console: Console | None = None) -> None:
    console = console or Console()
    console.print(_sentences(found))
    console.print(_similarities(found))
    console.print(_norms(found))
    console.print(_tokens(found))


def _sentences(found: Inspected) -> Table:
    table = Table(title="made from", box=None, title_justify="left")
    table.add_column("")
    table.add_column("sentences", justify="right")
    table.add_column("such as", overflow="fold")
    table.add_row("c", "1", found.sets.base)
    for name, bank in (("source", found.sets.sources), ("target", found.sets.targets)):
        table.add_row(name, str(len(set(bank))), "\n".join(bank[:SHOWN]))
    return table


def _similarities(found: Inspected) -> Table:
    table = Table(title="cosine to the mean of", box=None, title_justify="left")
    for column in ("", "before (c)", "after (c_edit)", "change"):
        table.add_column(column, justify="right" if column else "left")
    for name, (before, after) in found.similarities.items():
        table.add_row(name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
    return table


def _norms(found: Inspected) -> str:
    size, step = found.before.tokens.norm().item(), found.delta.tokens.norm().item()
    return f"|c| {size:.2f}   |Δ| {step:.2f}   |Δ| / |c| {step / size:.4f}"


def _tokens(found: Inspected) -> Table:
    table = Table(title="token by token", box=None, title_justify="left")
    for column in ("", "c", "target", "|c|", "|Δ|", "cosine(c, c_edit)"):
        table.add_column(column, justify="left" if column in ("c", "target") else "right")
    shown = max(len(found.words), len(found.target_words))
    before, delta, near = found.before.tokens, found.delta.tokens, found.similarity_by_token
    for i in range(shown):
        texts = [words[i] if i < len(words) else "" for words in (found.words, found.target_words)]
        size, step = before[i].norm().item(), delta[i].norm().item()
        table.add_row(str(i), *texts, f"{size:.2f}", f"{step:.2f}", f"{near[i].item():.4f}")
    if shown < len(before):
        rest = [t[shown:].norm(dim=-1).mean().item() for t in (before, delta)]
        last = near[shown:].mean().item()
        cells = (f"{rest[0]:.2f}", f"{rest[1]:.2f}", f"{last:.4f}")
        table.add_row(f"{shown}-{len(before) - 1}", "padding (mean)", "", *cells)
    return table
