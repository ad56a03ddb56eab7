"""Count the rows through the network that one edit takes: a row is one latent, evaluated once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from zerocon.backbones.base import Backbone, uncompiled
from zerocon.config.settings import RunSettings
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.prompts import words_of
from zerocon.runs.expected import expected
from zerocon.runs.progress import Display, Far


@dataclass(frozen=True)
class Rows:
    """Of the inversion, and of the method forward and backward."""

    inversion: int
    forward: int
    backward: int

    @property
    def method(self) -> int:
        """Without the inversion. Backward to the latent costs about as much as forward."""
        return self.forward + self.backward

    @property
    def edit(self) -> int:
        """All of them."""
        return self.inversion + self.method


def count_each(named: Mapping[str, RunSettings]) -> dict[str, Rows]:
    """Every run's rows for one picture; each backbone is loaded once."""
    loaded: dict[object, Backbone] = {}
    counts: dict[str, Rows] = {}
    rows = {name: sum(expected(settings).values()) for name, settings in named.items()}

    def far() -> Far:
        """In expected rows, so that a finished run counts as much as was expected of it."""
        finished = sum(rows[name] for name in counts)
        left = [name for name in named if name not in counts]
        said = f"{len(counts)} of {len(named)} counted" + (f", {left[0]}" if left else "")
        return Far(finished, sum(rows.values()), said)

    with Display(far):
        for name, settings in named.items():
            if settings.backbone not in loaded:
                loaded[settings.backbone] = settings.backbone.load()
            backbone = loaded[settings.backbone]
            with uncompiled(backbone):
                counts[name] = count_rows(settings, backbone)
    return counts


def count_rows(settings: RunSettings, backbone: Backbone) -> Rows:
    """Edit one gray picture and count."""
    image = torch.full((3, *backbone.size), 0.5)
    case = Case("a", image, "a red circle", "a blue circle", blend_words=("red", "blue"))
    source, target, negative = (
        backbone.embed([text]) for text in (case.source_prompt, case.target_prompt, "")
    )
    whole = torch.ones(1, 1, *backbone.size, device=backbone.device)
    conditions = Conditions(source, target, negative, [words_of(backbone, case)], whole)
    draws = Draws(settings.seed, [case.id])
    clean = backbone.encode(image[None])
    start = _now(backbone)
    trajectory = settings.inversion(backbone, clean, conditions, settings.method.steps, draws)
    between = _now(backbone)
    settings.method(backbone, trajectory, conditions, draws)
    end = _now(backbone)
    return Rows(sum(between) - sum(start), end[0] - between[0], end[1] - between[1])


def _now(backbone: Backbone) -> Sequence[int]:
    return backbone.evaluations.forward, backbone.evaluations.backward
