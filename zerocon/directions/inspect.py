"""One direction under the lamp: what it is made from, and where it moves the condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition
from zerocon.datasets.images import read_image
from zerocon.directions.base import (
    DescribesSources,
    Direction,
    MadeOfSentences,
    Said,
    difference_of,
    mean_embedding,
    with_sources,
)
from zerocon.directions.file import POOLED, SHARED
from zerocon.ledger.atomic import write_atomic

GROUPS = ("direction", "backbone")
SHOWN = 3  # sentences of each bank


@dataclass(frozen=True, eq=False)
class Inspected:
    said: Said
    target_prompt: str
    words: list[str]  # the tokens of the base sentence
    target_words: list[str]
    before: Condition  # c, tokens [token, width]
    after: Condition  # c_edit
    similarities: dict[str, tuple[float, float]]  # to which sentences: before, after

    @property
    def delta(self) -> Condition:
        """What was added to c, strength and pooling included."""
        return difference_of(self.after, self.before)


def inspected(
    backbone: Backbone, direction: Direction, source: str, target: str, image: Path | None
) -> Inspected:
    """The direction from one prompt to the other, and how it moves the source's condition."""
    case = _case(backbone, direction, source, target, image)
    (known,) = with_sources(direction, [case])
    said = _said(direction, case, known)
    before = backbone.embed([said.base])[0].map(lambda part: part.float().cpu())
    after = direction(backbone, [case])[0].map(lambda part: part.float().cpu())
    banks = {"source sentences": said.sources, "target sentences": said.targets}
    return Inspected(
        said,
        target,
        token_texts(backbone, said.base),
        token_texts(backbone, target),
        before,
        after,
        {name: _moved(backbone, bank, before, after) for name, bank in banks.items()},
    )


def pooled(condition: Condition) -> Tensor:
    """One vector for a condition, [width]: the mean over its tokens, without the start token,
    which is the same in every sentence and longer than the others."""
    return condition.tokens[1:].mean(0)


def token_texts(backbone: Any, prompt: str) -> list[str]:
    """The tokens' own words where the backbone has a tokenizer, else their numbers."""
    ids = list(backbone.tokens(prompt))
    tokenizer = getattr(backbone, "tokenizer", None)
    texts = tokenizer.convert_ids_to_tokens(ids) if tokenizer else [str(i) for i in ids]
    return [str(text).removesuffix("</w>") for text in texts]


def save_direction(found: Inspected, file: Path, fingerprint: str) -> None:
    """As `direction=file` reads it."""
    said = {"backbone": fingerprint, "source": found.said.base, "target": found.target_prompt}
    file.parent.mkdir(parents=True, exist_ok=True)
    names = {"tokens": SHARED, "pooled": POOLED}
    tensors = {names[part]: delta.contiguous() for part, delta in found.delta.parts.items()}
    write_atomic(file, save(tensors, said))


def print_report(found: Inspected, console: Console | None = None) -> None:
    console = console or Console()
    console.print(_sentences(found))
    console.print(_similarities(found))
    console.print(_norms(found))
    console.print(_tokens(found))


def without_effect(overrides: Sequence[str]) -> None:
    """ConfigError for a setting that has nothing to do with a direction."""
    for override in overrides:
        group = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if group not in GROUPS:
            raise ConfigError(
                f"{override} has no effect on a direction; only {' and '.join(GROUPS)} have"
            )


def _case(
    backbone: Backbone, direction: Direction, source: str, target: str, image: Path | None
) -> Case:
    if image is not None:
        pixels, notes = read_image(Path(image.name), image.parent, backbone.side)
        return Case("command line", pixels, source, target, notes=notes)
    if isinstance(direction, DescribesSources):
        raise ConfigError("direction=caption looks at the picture: give it as --image FILE")
    return Case("command line", torch.zeros(3, backbone.side, backbone.side), source, target)


def _said(direction: Direction, case: Case, known: Case) -> Said:
    if isinstance(direction, MadeOfSentences):
        return direction.said([case])[0]
    return Said(known.source_prompt, (known.source_prompt,), (case.target_prompt,))


def _moved(
    backbone: Backbone, sentences: Sequence[str], before: Condition, after: Condition
) -> tuple[float, float]:
    """The cosine between the condition and the sentences' mean, before and after."""
    mean = pooled(mean_embedding(backbone, sentences).map(lambda part: part.cpu()))
    near = [F.cosine_similarity(pooled(c), mean, dim=0).item() for c in (before, after)]
    return near[0], near[1]


def _sentences(found: Inspected) -> Table:
    table = Table(title="made from", box=None, title_justify="left")
    table.add_column("")
    table.add_column("sentences", justify="right")
    table.add_column("such as", overflow="fold")
    table.add_row("c", "1", found.said.base)
    for name, bank in (("source", found.said.sources), ("target", found.said.targets)):
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
    before, delta = found.before.tokens, found.delta.tokens
    near = F.cosine_similarity(before, found.after.tokens, dim=-1)
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
