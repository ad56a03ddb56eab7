"""SDEdit (Meng et al. 2022): noise the picture part of the way, denoise under the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict_guided
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses, sample
from zerocon.core.solvers import Euler
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class SDEdit:
    """`strength` is the share of the steps that are noised over and sampled again."""

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 50
    guidance: float = 7.5
    strength: float = 0.7

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.strength", self.strength, 0, 1)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        path = trajectory.path.tail(max(1, round(self.strength * self.steps)))
        noise = draws.normal_like(trajectory.clean, "sdedit")
        texts = conditions.negative, conditions.target

        def evaluate(_step: int, z: Branches, level: Level) -> Guesses:
            return {"edit": predict_guided(backbone, level, z["edit"], *texts, self.guidance)}

        start = {"edit": path.levels[0].mix(trajectory.clean, noise)}
        return sample(Euler(path), len(path), start, evaluate)["edit"]
