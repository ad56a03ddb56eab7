"""Null-text inversion (Mokady et al. 2023): optimise ∅ per step to reconstruct with guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.levels import Guess, at_least_single
from zerocon.inversions.base import Provided, Trajectory
from zerocon.inversions.ddim import DDIMInversion

SCALE = 2.0**14  # loss scaling: small gradients survive half precision
LossAt = Callable[[Condition, Tensor], Tensor]  # (∅ of some rows, the rows) -> their losses


@dataclass(frozen=True)
class NullTextInversion:
    """DDIM inversion at guidance 1, then Adam on ∅, step by step, at the sampling guidance.

    Each step starts from the previous step's ∅. A case is finished with a step when its loss is
    below `tolerance + step · 2e-5`; others continue without it.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory", "negative"})
    uses_draws: ClassVar[bool] = False  # the same for every seed and case id

    guidance: float = 7.5
    iterations: int = 10
    learning_rate: float = 1e-2
    tolerance: float = 1e-5

    @property
    def fitted_guidance(self) -> float:
        return self.guidance

    def __post_init__(self) -> None:
        in_range("inversion.guidance", self.guidance, 0, 100)
        in_range("inversion.iterations", self.iterations, 1, 1000)
        in_range("inversion.learning_rate", self.learning_rate, 0, 10)
        in_range("inversion.tolerance", self.tolerance, 0)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        walk = DDIMInversion()(backbone, clean, conditions, steps, draws)
        z, null, nulls = walk.start, conditions.negative.map(at_least_single), list[Condition]()
        stored = conditions.negative.tokens.dtype
        for i, (level, there) in enumerate(walk.path.steps):
            with_text = backbone.predict(z, level, conditions.source)
            null = self._fitted(null, i, self._loss(backbone, walk, i, z, with_text))
            nulls.append(null.map(lambda part: part.to(stored)))
            without = backbone.predict(z, level, nulls[-1])
            z = walk.guided(without, with_text, self.guidance).at(there)
        return dataclasses.replace(walk, negatives=Condition.stack(nulls))

    def _loss(
        self, backbone: Backbone, walk: Trajectory, step: int, z: Tensor, with_text: Guess
    ) -> LossAt:
        """The squared distance of the guided step's result from the trajectory, [case]."""
        (level, there), goal = walk.path.steps[step], walk.before(step + 1)

        def loss_at(null: Condition, rows: Tensor) -> Tensor:
            without = backbone.predict(z[rows], level, null.map(lambda part: part.to(z.dtype)))
            landed = walk.guided(without, with_text[rows], self.guidance).at(there)
            return at_least_single(landed - goal[rows]).square().mean((1, 2, 3))

        return loss_at

    def _fitted(self, null: Condition, step: int, loss_at: LossAt) -> Condition:
        """∅ after optimisation; each case stops separately."""
        rate = self.learning_rate * max(0.0, 1 - step / 100)
        limit = self.tolerance + step * 2e-5
        null = null.map(torch.clone)
        rows = torch.arange(len(null), device=null.tokens.device)
        mean, square = null.map(torch.zeros_like), null.map(torch.zeros_like)
        for k in range(1, self.iterations + 1):
            loss, slopes = _slopes(loss_at, null[rows], rows)
            for part, slope, m, v in zip(
                *(c.parts.values() for c in (null, slopes, mean, square)), strict=True
            ):
                m[rows] = 0.9 * m[rows] + 0.1 * slope
                v[rows] = 0.999 * v[rows] + 0.001 * slope.square()
                size = (v[rows] / (1 - 0.999**k)).sqrt() + 1e-8
                part[rows] -= rate * m[rows] / (1 - 0.9**k) / size
            rows = rows[loss >= limit]
            if not len(rows):
                break
        return null


@torch.enable_grad()
def _slopes(loss_at: LossAt, null: Condition, rows: Tensor) -> tuple[Tensor, Condition]:
    """The losses and their gradients with respect to each row's ∅."""
    leaf = null.map(lambda part: part.detach().requires_grad_())
    loss = loss_at(leaf, rows)
    slopes = torch.autograd.grad(loss.sum() * SCALE, list(leaf.parts.values()))
    found = dict(zip(leaf.parts, (slope / SCALE for slope in slopes), strict=True))
    return loss.detach(), Condition(**found)
