"""Negative-prompt inversion (Miyake et al. 2023), with proximal guidance (Han et al. 2024)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Provided, Trajectory
from zerocon.inversions.ddim import DDIMInversion


@dataclass(frozen=True)
class NegativePromptInversion:
    """The source prompt as ∅, so that guidance has no effect on the source.

    `proximal`: guidance keeps only differences above this quantile of their magnitudes. `shrink`:
    a soft threshold instead of a hard one, as in the published code.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory", "negative"})
    uses_draws: ClassVar[bool] = False  # the same for every seed and case id

    proximal: float | None = None
    shrink: bool = False

    def __post_init__(self) -> None:
        if self.proximal is not None:
            in_range("inversion.proximal", self.proximal, 0, 1)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        walk = DDIMInversion()(backbone, clean, conditions, steps, draws)
        negatives = conditions.source.map(lambda part: part.expand(steps, *part.shape))
        return dataclasses.replace(
            walk, negatives=negatives, proximal=self.proximal, shrink=self.shrink
        )
