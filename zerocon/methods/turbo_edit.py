"""TurboEdit (Deutch et al. 2024): pseudo-guidance, away from the source prompt, in a few steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict, told
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class TurboEdit:
    """Samples with what each step needs to return to the picture under the source prompt.

    The network sees the edit's latent under both prompts, and `guidance` is the factor of their
    difference: 1 is the target prompt alone. Distilled models have no use for an empty prompt.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"trajectory", "target"})

    steps: int = 5
    guidance: float = 1.5

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        # From prompt to prompt, which is no scale that a network is told.
        source, target = (told(backbone, t, 1.0) for t in (conditions.source, conditions.target))

        def evaluate(_step: int, z: Branches, level: Level) -> Guesses:
            rows = {"negative": (z["edit"], source), "target": (z["edit"], target)}
            if self.guidance == 1.0:
                del rows["negative"]
            found = predict(backbone, level, rows)
            return {"edit": trajectory.guided_role(found, "target", "negative", self.guidance)}

        return trajectory.sample(trajectory.starts("edit"), evaluate)
