"""Null-text inversion (Mokady et al. 2023): an ∅ for each step, so that guidance returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.diffusion import at_least_single
from zerocon.inversions.base import Provided, Trajectory
from zerocon.inversions.ddim import DDIMInversion

SCALE = 2.0**14  # of the loss on its way back: small slopes survive half precision
LossAt = Callable[[Tensor, Tensor], Tensor]  # (the ∅ of some rows, which rows) -> their losses


@dataclass(frozen=True)
class NullTextInversion:
    """DDIM inversion at guidance 1, then Adam on ∅, step by step, at the guidance of sampling.

    A step's ∅ begins where the last one's ended. A case is done with a step when its loss is
    below `tolerance + step · 2e-5`; the others go on without it.
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
        z, null, nulls = walk.start, at_least_single(conditions.negative), list[Tensor]()
        for i, time in enumerate(walk.schedule.times):
            with_text = backbone.eps(z, time, conditions.source)
            null = self._fitted(null, i, self._loss(backbone, walk, i, z, with_text))
            nulls.append(null.to(conditions.negative.dtype))
            without = backbone.eps(z, time, nulls[-1])
            z = walk.step(i, z, walk.guided(without, with_text, self.guidance))
        return dataclasses.replace(walk, negatives=torch.stack(nulls))

    def _loss(
        self, backbone: Backbone, walk: Trajectory, step: int, z: Tensor, with_text: Tensor
    ) -> LossAt:
        """How far the guided step lands from the trajectory, [case]."""
        time, goal = walk.schedule.times[step], walk.before(step + 1)

        def loss_at(null: Tensor, rows: Tensor) -> Tensor:
            without = backbone.eps(z[rows], time, null.to(z.dtype))
            eps = walk.guided(without, with_text[rows], self.guidance)
            landed = walk.step(step, z[rows], eps)
            return at_least_single(landed - goal[rows]).square().mean((1, 2, 3))

        return loss_at

    def _fitted(self, null: Tensor, step: int, loss_at: LossAt) -> Tensor:
        """∅ after Adam's steps, [case, token, width]; each case stops for itself."""
        rate = self.learning_rate * max(0.0, 1 - step / 100)
        limit = self.tolerance + step * 2e-5
        null, rows = null.clone(), torch.arange(len(null), device=null.device)
        mean, square = torch.zeros_like(null), torch.zeros_like(null)
        for k in range(1, self.iterations + 1):
            loss, slope = _slope(loss_at, null[rows], rows)
            mean[rows] = 0.9 * mean[rows] + 0.1 * slope
            square[rows] = 0.999 * square[rows] + 0.001 * slope.square()
            size = (square[rows] / (1 - 0.999**k)).sqrt() + 1e-8
            null[rows] -= rate * mean[rows] / (1 - 0.9**k) / size
            rows = rows[loss >= limit]
            if not len(rows):
                break
        return null


@torch.enable_grad()
def _slope(loss_at: LossAt, null: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The losses and their gradients by each row's own ∅."""
    leaf = null.detach().requires_grad_()
    loss = loss_at(leaf, rows)
    (slope,) = torch.autograd.grad(loss.sum() * SCALE, leaf)
    return loss.detach(), slope / SCALE
