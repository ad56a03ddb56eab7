"""No inversion: only the encoded picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.inversions.base import Trajectory


@dataclass(frozen=True)
class NoInversion:
    def __call__(self, backbone: Backbone, clean: Tensor, source: Tensor, steps: int) -> Trajectory:
        return Trajectory(backbone.schedule(steps), clean[None])
