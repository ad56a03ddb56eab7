"""RF-Inversion (Rout et al. 2024): inversion controlled towards noise drawn in advance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict_guided
from zerocon.core.levels import Level, Path
from zerocon.inversions.base import Provided, Trajectory


@dataclass(frozen=True)
class RFInversion:
    """`û = u + γ ((y1 - y) / (1 - t) - u)`, where `y1` is the noise and `u` the model's velocity.

    `schedule`: the sampler's levels in reverse (`path`), or as in the published code: the network
    gets `i / (N + 1)`, a time without shift, and the step sizes are those of the sampler's path in
    the order of sampling.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})

    gamma: float = 0.5
    prompt: Literal["source", "empty"] = "empty"
    guidance: float = 1.0
    schedule: Literal["path", "published"] = "path"

    def __post_init__(self) -> None:
        in_range("inversion.gamma", self.gamma, 0, 1)
        one_of("inversion.prompt", self.prompt, ("source", "empty"))
        in_range("inversion.guidance", self.guidance, 0, 100)
        one_of("inversion.schedule", self.schedule, ("path", "published"))

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        path = backbone.path(steps)
        text = conditions.source if self.prompt == "source" else conditions.negative
        noise = draws.normal_like(clean, "rf_inversion")
        y, latents = clean / path.levels[-1].scale, [clean]
        for (told, size), there in zip(
            self._steps(backbone, path), path.upwards.levels[1:], strict=True
        ):
            asked = told.scale * y, conditions.negative, text, self.guidance
            u = predict_guided(backbone, told, *asked).velocity
            y = y + size * (u + self.gamma * ((noise - y) / (1 - told.t) - u))
            latents.append(there.scale * y)
        return Trajectory(path, torch.stack(latents))

    def _steps(self, backbone: Backbone, path: Path) -> list[tuple[Level, float]]:
        """Each step's level for the network, and its size in flow time."""
        if self.schedule == "path":
            return [(here, there.t - here.t) for here, there in path.upwards.steps]
        told = [backbone.level_at(i / (len(path) + 1)) for i in range(len(path))]
        sizes = [here.t - there.t for here, there in path.steps]
        return list(zip(told, sizes, strict=True))
