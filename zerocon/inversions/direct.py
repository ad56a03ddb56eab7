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
from zerocon.inversions.regularized import Grid, RegularizedInversion


@dataclass(frozen=True)
class DirectInversion:
    """An inversion; while sampling, `z_src += z* - z_src`, and the edited row is left alone.

    `walk`: DDIM inversion, or pix2pix-zero's `regularized` one on its `grid`. `moves`: the
    `source` alone, or `both` rows by what puts the source back. PIE-Bench's runs of pix2pix-zero
    have the second of each. `steps`: see DDIM inversion.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory", "source_row"})

    prompt: Literal["source", "empty"] = "source"
    refinements: int = 0
    steps: int | None = None
    walk: Literal["ddim", "regularized"] = "ddim"
    grid: Grid = "diffusers"
    moves: Literal["source", "both"] = "source"

    def __post_init__(self) -> None:
        one_of("inversion.walk", self.walk, ("ddim", "regularized"))
        one_of("inversion.moves", self.moves, ("source", "both"))
        self._ddim()
        self._regularized()
        if self.walk == "ddim" and self.grid != "diffusers":
            raise ConfigError(
                f"inversion.grid={self.grid} is one of pix2pix-zero's inversion; set "
                "inversion.walk=regularized, or leave it out"
            )
        if self.walk == "regularized" and self._ddim() != DDIMInversion():
            raise ConfigError(
                "inversion.walk=regularized inverts under the source prompt, in as many steps as "
                "the sampler, without refinements; leave inversion.prompt, inversion.steps and "
                "inversion.refinements as they are"
            )

    @property
    def uses_draws(self) -> bool:
        """Without them it is the same for every seed and case id."""
        return self.walk == "regularized"

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        invert = self._regularized() if self.walk == "regularized" else self._ddim()
        walk = invert(backbone, clean, conditions, steps, draws)
        return dataclasses.replace(walk, pinned=True, pulled=self.moves == "both")

    @property
    def diffusion_only(self) -> bool:
        return self._regularized().diffusion_only

    def _regularized(self) -> RegularizedInversion:
        return RegularizedInversion(grid=self.grid)

    def _ddim(self) -> DDIMInversion:
        return DDIMInversion(self.prompt, self.refinements, self.steps)
