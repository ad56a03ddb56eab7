"""RF-Inversion's edit (Rout et al. 2024): sampling that is pulled towards the picture at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict_guided
from zerocon.core.levels import Guess, Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class RFInversionEdit:
    """`v̂ = v + η ((z - x) / t - v)` from the share `start` of the steps to the share `stop`.

    So the clean part that the network sees moves by the share η towards the picture `x`.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 28
    guidance: float = 3.5
    eta: float = 0.9
    start: float = 0.0
    stop: float = 0.25

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.eta", self.eta, 0, 1)
        in_range("method.start", self.start, 0, 1)
        in_range("method.stop", self.stop, self.start, 1)

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
        steps, picture = len(trajectory.path), trajectory.clean / trajectory.path.levels[-1].scale
        pulled = range(int(self.start * steps), int(self.stop * steps))

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = trajectory.negative(step, conditions.negative)
            asked = z["edit"], negative, conditions.target, self.guidance
            guess = predict_guided(backbone, level, *asked)
            if step in pulled:
                pull = (z["edit"] / level.scale - picture) / level.t - guess.velocity
                guess = Guess.along(z["edit"], guess.velocity + self.eta * pull, level)
            return {"edit": guess}

        return trajectory.sample(trajectory.starts("edit"), evaluate)
