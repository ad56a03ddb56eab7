"""Forward passes over rows that have names: source, target, negative."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.taps import Enough

Rows = Mapping[str, tuple[Tensor, Tensor]]  # role -> (latents, text condition), all of one size


def predict(backbone: Backbone, time: int, rows: Rows) -> dict[str, Tensor]:
    """The noise in every role's latents, in one forward pass whose rows the taps see by name."""
    latents, conditions = zip(*rows.values(), strict=True)
    count = len(latents[0])
    with backbone.taps.labelled(tuple(rows), count):
        eps = backbone.eps(torch.cat(latents), time, torch.cat(conditions))
    return dict(zip(rows, eps.split(count), strict=True))


def look(backbone: Backbone, time: int, rows: Rows) -> None:
    """A forward pass for its taps only; it ends where a recording with `stop` has seen all."""
    with suppress(Enough):
        predict(backbone, time, rows)
