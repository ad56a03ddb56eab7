"""DDIM sampling from the inverted noise: word swap, and plain reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class DDIM:
    """Replay the trajectory under the target prompt (word swap) or the source's (as it was)."""

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 50
    guidance: float = 7.5
    prompt: Literal["target", "source"] = "target"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        one_of("method.prompt", self.prompt, ("target", "source"))

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory"}
        if self.guidance != 1.0:
            used.add("negative")
        if self.prompt == "target":
            used.add("target")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        cond = conditions.target if self.prompt == "target" else conditions.source
        z = trajectory.start
        for i, time in enumerate(trajectory.schedule.times):
            if self.guidance == 1.0:
                eps = backbone.eps(z, time, cond)
            else:
                negative = trajectory.negative(i, conditions.negative)
                both = predict(backbone, time, {"negative": (z, negative), "target": (z, cond)})
                eps = trajectory.guided(both["negative"], both["target"], self.guidance)
            z = trajectory.step(i, z, eps)
        return z
