"""DNAEdit (Xie et al. 2025): direct noise alignment.

Upwards, one noise is corrected at each step by how far its straight line is from what the network
says. Downwards, the same corrections lead to where the source's velocity is known, and the edit
is held to a picture that moves with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone, Times, path_of
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.forward import Asked, predict_each
from zerocon.core.levels import Level, Path, at_least_single
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used


@dataclass(frozen=True, eq=False)
class Aligned:
    """What the way up found at one level, in the common coordinate."""

    z: Tensor  # where the step along the source's velocity has led
    correction: Tensor  # from there to where the network was asked
    velocity: Tensor  # of the source


@dataclass(frozen=True)
class DNAEdit:
    """`v = mvg v_T + (1 - mvg) (z - reference) / t`, where the reference is the picture, moved by
    `v_T - v_S` at each step. `strength`: the share of the steps that are walked up and back.
    """

    needs_inversion: ClassVar[bool] = False
    uses_mask: ClassVar[bool] = False
    uses: ClassVar[frozenset[Used]] = frozenset({"target"})

    steps: int = 40
    guidance: float = 3.5
    source_guidance: float = 1.0
    mvg: float = 0.8
    strength: float = 0.675
    times: Times = "model"

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.source_guidance", self.source_guidance, 0, 100)
        in_range("method.mvg", self.mvg, 0, 1)
        in_range("method.strength", self.strength, 0, 1)
        one_of("method.times", self.times, ("model", "even"))

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        path = path_of(backbone, self.steps, self.times)
        path = path.tail(max(1, round(self.strength * self.steps)))
        reference = at_least_single(trajectory.clean)
        aligned = self._aligned(backbone, conditions, path, reference, draws)
        z = aligned[-1].z
        for (here, there), up in zip(path.steps, reversed(aligned), strict=True):
            size = there.t - here.t
            asked = Asked(z + up.correction, conditions.target, self.guidance)
            velocity = _velocity(backbone, here, conditions.negative, "target", asked)
            reference = reference + size * (velocity - up.velocity)
            pull = (z - reference) / here.t
            z = z + size * (self.mvg * velocity + (1 - self.mvg) * pull)
        return z.to(trajectory.clean)

    def _aligned(
        self,
        backbone: Backbone,
        conditions: Conditions,
        path: Path,
        clean: Tensor,
        draws: Draws,
    ) -> list[Aligned]:
        """The way up, cleanest first."""
        noise, z, aligned = draws.normal_like(clean, "dnaedit"), clean, list[Aligned]()
        for here, there in path.upwards.steps:
            size = there.t - here.t
            line = (noise - z) / (1 - here.t)
            asked = Asked(z + size * line, conditions.source, self.source_guidance)
            velocity = _velocity(backbone, there, conditions.negative, "source", asked)
            z, error = z + size * velocity, line - velocity
            noise = noise - (1 - here.t) * error
            aligned.append(Aligned(z, size * error, velocity))
        return aligned


def _velocity(
    backbone: Backbone, level: Level, negative: Condition, role: str, asked: Asked
) -> Tensor:
    """The guided velocity at a latent of the common coordinate."""
    z = (level.scale * asked.z).to(backbone.dtype)
    found = predict_each(backbone, level, negative, {role: Asked(z, asked.text, asked.guidance)})
    return at_least_single(found[role].velocity)
