"""FlowAlign (Kim et al. 2025): FlowEdit guided from prompt to prompt, and held to the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone, Times, path_of
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import Asked, predict_each
from zerocon.core.levels import Level, at_least_single, guided
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used
from zerocon.methods.flowedit import beside


@dataclass(frozen=True)
class FlowAlign:
    """`v_p = v(p, source) + w (v(p, target) - v(p, source))`, where `w` is `guidance`.

    Each step also moves by `pull` (ζ) times the difference of the two clean estimates, the
    picture's less the edit's. `strength`: the last share of the steps, all of them in the paper.
    """

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 33
    guidance: float = 7.5
    pull: float = 0.01
    strength: float = 1.0
    times: Times = "model"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.pull", self.pull, 0, 1)
        in_range("method.strength", self.strength, 0, 1)
        one_of("method.times", self.times, ("model", "even"))

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        path = path_of(backbone, self.steps, self.times)
        clean = at_least_single(trajectory.clean)
        z = clean
        for step in range(self.steps - round(self.strength * self.steps), self.steps):
            here, there = path.steps[step]
            noise = draws.normal_like(clean, f"flowalign/{step}")
            velocity, apart = self._compared(
                backbone, conditions, here, beside(here, clean, z, noise)
            )
            z = z + (there.t - here.t) * velocity + self.pull * apart
        return z.to(trajectory.clean)

    def _compared(
        self, backbone: Backbone, conditions: Conditions, here: Level, noisy: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The edit's velocity less the picture's, and the clean picture less the clean edit."""
        q, p = (z.to(backbone.dtype) for z in noisy)
        asked = {
            "source": Asked(q, conditions.source, 1.0),
            "edit_source": Asked(p, conditions.source, 1.0),
            "target": Asked(p, conditions.target, 1.0),
        }
        found = predict_each(backbone, here, conditions.negative, asked)
        edit = guided(found["edit_source"], found["target"], self.guidance)
        less = found["source"] - edit
        return -at_least_single(less.velocity), at_least_single(less.clean)
