"""DDIM sampling from the inverted noise: word swap, and plain reconstruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import needs_negative, predict, told
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses
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
        text = conditions.target if self.prompt == "target" else conditions.source

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            if not needs_negative(backbone, self.guidance):
                asked = told(backbone, text, self.guidance)
                return {"edit": backbone.predict(z["edit"], level, asked)}
            negative = trajectory.negative(step, conditions.negative)
            rows = {"negative": (z["edit"], negative), "target": (z["edit"], text)}
            found = predict(backbone, level, rows)
            return {"edit": trajectory.guided(found["negative"], found["target"], self.guidance)}

        return trajectory.sample(trajectory.starts("edit"), evaluate)
