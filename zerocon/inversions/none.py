"""No inversion: only the encoded picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Provided, Trajectory


@dataclass(frozen=True)
class NoInversion:
    provides: ClassVar[frozenset[Provided]] = frozenset()

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        return Trajectory(backbone.path(steps), clean[None])
