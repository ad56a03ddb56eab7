"""Uni-Edit (UniEdit-Flow, Jiao et al. 2025): more of the target where two velocities differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import Asked, predict_each
from zerocon.core.levels import Guess, Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class UniEdit:
    """`m v_T + (1 - m) v_S + ω (1 + m) d` with `d = v_T - v_S`, both at the edit's latent.

    The mask `m` is the mean of `|d|` over channels, from 0 to 1 in each case; with
    `mask=signed` that of `d`, as in one of the two published versions. Sampling starts at the
    share `share` (α) of the steps above the picture.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 15
    guidance: float = 1.0
    omega: float = 5.0
    share: float = 0.6
    mask: Literal["absolute", "signed"] = "absolute"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.omega", self.omega, 0, 100)
        in_range("method.share", self.share, 0, 1)
        one_of("method.mask", self.mask, ("absolute", "signed"))

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "target"}
        if self.guidance != 1.0:
            used.add("negative")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        way = trajectory.tail(max(1, round(self.share * self.steps)))

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = way.negative(step, conditions.negative)
            texts = {"source": conditions.source, "target": conditions.target}
            asked = {role: Asked(z["edit"], text, self.guidance) for role, text in texts.items()}
            found = predict_each(backbone, level, negative, asked)
            velocity = self._fused(found["source"].velocity, found["target"].velocity)
            return {"edit": Guess.along(z["edit"], velocity, level)}

        return way.sample(way.starts("edit"), evaluate)

    def _fused(self, source: Tensor, target: Tensor) -> Tensor:
        apart = target - source
        size = (apart.abs() if self.mask == "absolute" else apart).mean(1, keepdim=True)
        low, high = size.amin((2, 3), keepdim=True), size.amax((2, 3), keepdim=True)
        mask = (size - low) / (high - low).clamp(min=torch.finfo(size.dtype).tiny)
        return source + mask * apart + self.omega * (1 + mask) * apart
