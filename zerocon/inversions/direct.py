"""Direct inversion (PnP Inversion, Ju et al. 2024): the source's row is put back at every step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Provided, Trajectory
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.regularized import RegularizedInversion


@dataclass(frozen=True)
class DirectInversion:
    """An inversion; while sampling, `z_src += z* - z_src`, and the edited row is left alone.

    `walk`: DDIM inversion, or pix2pix-zero's `regularized` one. `moves`: the `source` alone, or
    `both` rows by what puts the source back. PIE-Bench's runs of pix2pix-zero have the second
    of each.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory", "source_row"})

    prompt: Literal["source", "empty"] = "source"
    refinements: int = 0
    walk: Literal["ddim", "regularized"] = "ddim"
    moves: Literal["source", "both"] = "source"

    def __post_init__(self) -> None:
        one_of("inversion.walk", self.walk, ("ddim", "regularized"))
        one_of("inversion.moves", self.moves, ("source", "both"))
        self._ddim()
        if self.walk == "regularized" and (self.prompt != "source" or self.refinements):
            raise ConfigError(
                "inversion.walk=regularized inverts under the source prompt and has no "
                "refinements; leave inversion.prompt and inversion.refinements as they are"
            )

    @property
    def uses_draws(self) -> bool:
        """Without them it is the same for every seed and case id."""
        return self.walk == "regularized"

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        invert = RegularizedInversion() if self.walk == "regularized" else self._ddim()
        walk = invert(backbone, clean, conditions, steps, draws)
        return dataclasses.replace(walk, pinned=True, pulled=self.moves == "both")

    def _ddim(self) -> DDIMInversion:
        return DDIMInversion(self.prompt, self.refinements)
