"""FlowEdit (Kulikov et al. 2024): from the picture to its edit directly, without inversion.

The edit moves along the difference of two velocities: of the noisy edit under the target prompt
and of the noisy picture under the source prompt, with the same noise. In the common coordinate
of `core/levels.py` that is the same for flow models and diffusion models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone, Times, path_of
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import Asked, predict_each, predict_guided
from zerocon.core.levels import Level, Path, at_least_single
from zerocon.core.sampling import Branches, Guesses, sample
from zerocon.core.solvers import Euler
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True)
class FlowEdit:
    """The last share `strength` of the steps edits, each with the mean of `averages` noises.

    In the last share `sampled` of the steps the noisy edit is sampled under the target prompt
    instead. The paper counts steps: n_max, n_min and n_avg.
    """

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 50
    guidance: float = 13.5
    source_guidance: float = 3.5
    strength: float = 0.66
    sampled: float = 0.0
    averages: int = 1
    times: Times = "model"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.source_guidance", self.source_guidance, 0, 100)
        in_range("method.strength", self.strength, 0, 1)
        in_range("method.sampled", self.sampled, 0, self.strength)
        in_range("method.averages", self.averages, 1, 1000)
        one_of("method.times", self.times, ("model", "even"))

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        path = path_of(backbone, self.steps, self.times)
        first = self.steps - round(self.strength * self.steps)
        last = self.steps - round(self.sampled * self.steps)
        clean = at_least_single(trajectory.clean)
        z = clean
        for step in range(first, last):
            here, there = path.steps[step]
            purposes = [f"flowedit/{step}/{k}" for k in range(self.averages)]
            noises = [draws.normal_like(clean, purpose) for purpose in purposes]
            found = [self._velocity(backbone, conditions, here, clean, z, n) for n in noises]
            z = z + (there.t - here.t) * torch.stack(found).mean(0)
        if last < self.steps:
            noise = draws.normal_like(clean, f"flowedit/{last}/sampled")
            _, noisy = beside(path.levels[last], clean, z, noise)
            z = self._sampled(backbone, conditions, path.tail(self.steps - last), noisy)
        return z.to(trajectory.clean)

    def _velocity(
        self,
        backbone: Backbone,
        conditions: Conditions,
        here: Level,
        clean: Tensor,
        z: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """`v(p, target) - v(q, source)`."""
        q, p = (noisy.to(backbone.dtype) for noisy in beside(here, clean, z, noise))
        asked = {
            "source": Asked(q, conditions.source, self.source_guidance),
            "target": Asked(p, conditions.target, self.guidance),
        }
        found = predict_each(backbone, here, conditions.negative, asked)
        return at_least_single(found["target"].velocity - found["source"].velocity)

    def _sampled(
        self, backbone: Backbone, conditions: Conditions, path: Path, noisy: Tensor
    ) -> Tensor:
        texts = conditions.negative, conditions.target

        def evaluate(_step: int, z: Branches, level: Level) -> Guesses:
            return {"edit": predict_guided(backbone, level, z["edit"], *texts, self.guidance)}

        start = {"edit": noisy.to(backbone.dtype)}
        return sample(Euler(path), len(path), start, evaluate)["edit"]


def beside(here: Level, clean: Tensor, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy picture, `q = (1-t) clean + t N`, and the noisy edit, `p = z + q - clean`."""
    noisy = here.mix(clean, noise)
    return noisy, noisy + here.scale * (z - clean)
