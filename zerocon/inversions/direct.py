"""Direct inversion (PnP Inversion, Ju et al. 2024): the source's row is put back at every step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.conditions import Conditions, Draws
from zerocon.inversions.base import Provided, Trajectory
from zerocon.inversions.ddim import DDIMInversion


@dataclass(frozen=True)
class DirectInversion:
    """DDIM inversion; while sampling, `z_src += z* - z_src`, and the edited row is left alone."""

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory", "source_row"})
    uses_draws: ClassVar[bool] = False  # the same for every seed and case id

    prompt: Literal["source", "empty"] = "source"
    refinements: int = 0

    def __post_init__(self) -> None:
        self._ddim()

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        walk = self._ddim()(backbone, clean, conditions, steps, draws)
        return dataclasses.replace(walk, pinned=True)

    def _ddim(self) -> DDIMInversion:
        return DDIMInversion(self.prompt, self.refinements)
