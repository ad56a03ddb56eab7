"""Direct inversion (PnP Inversion, Ju et al. 2024): reset the source branch at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Inversion, Provided, Trajectory, WayBack
from zerocon.inversions.by_solver import (
    FireFlowInversion,
    FixedPointInversion,
    InversionBySolver,
    RFSolverInversion,
    UniInversion,
)
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.regularized import Grid, RegularizedInversion

Walk = Literal["ddim", "regularized", "rf_solver", "fireflow", "uni_inv", "fixed_point"]
BY_SOLVER: Mapping[str, type[InversionBySolver]] = {
    "rf_solver": RFSolverInversion,
    "fireflow": FireFlowInversion,
    "uni_inv": UniInversion,
    "fixed_point": FixedPointInversion,
}


@dataclass(frozen=True)
class DirectInversion:
    """Wraps an inversion; in sampling, `z_src += z* - z_src`, without changing the edit.

    `walk`: DDIM inversion (`steps`: see there), pix2pix-zero's `regularized` one on its `grid`, or
    one of the solvers'. `moves`: correct only the `source`, or move `both` branches by the
    source's correction. PIE-Bench's runs of pix2pix-zero use `regularized` and `both`; FTEdit
    uses `fixed_point` and `source`.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory", "source_row"})

    prompt: Literal["source", "empty"] = "source"
    refinements: int = 0
    steps: int | None = None
    walk: Walk = "ddim"
    grid: Grid = "diffusers"
    moves: Literal["source", "both"] = "source"

    def __post_init__(self) -> None:
        one_of("inversion.walk", self.walk, get_args(Walk))
        one_of("inversion.moves", self.moves, ("source", "both"))
        self._ddim()
        self._regularized()
        if self.walk != "regularized" and self.grid != "diffusers":
            raise ConfigError(
                f"inversion.grid={self.grid} is for pix2pix-zero's inversion; set "
                "inversion.walk=regularized, or leave it out"
            )
        if self.walk == "regularized" and self._ddim() != DDIMInversion():
            raise ConfigError(
                "inversion.walk=regularized inverts under the source prompt, in as many steps as "
                "the sampler, without refinements; leave inversion.prompt, inversion.steps and "
                "inversion.refinements as they are"
            )
        if self.walk in BY_SOLVER and (self.refinements or self.steps):
            raise ConfigError(
                f"inversion.walk={self.walk} has no refinements and as many steps as the sampler; "
                "leave inversion.refinements and inversion.steps as they are"
            )

    @property
    def uses_draws(self) -> bool:
        """Whether it uses random draws; otherwise it is the same for every seed and case id."""
        return self.walk == "regularized"

    @property
    def way_back(self) -> WayBack:
        return BY_SOLVER[self.walk].way_back if self.walk in BY_SOLVER else "euler"

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        walk = self._inversion()(backbone, clean, conditions, steps, draws)
        return dataclasses.replace(walk, pinned=True, pulled=self.moves == "both")

    @property
    def diffusion_only(self) -> bool:
        return self._regularized().diffusion_only

    def _inversion(self) -> Inversion:
        if self.walk == "regularized":
            return self._regularized()
        if self.walk == "ddim":
            return self._ddim()
        return BY_SOLVER[self.walk](prompt=self.prompt)

    def _regularized(self) -> RegularizedInversion:
        return RegularizedInversion(grid=self.grid)

    def _ddim(self) -> DDIMInversion:
        return DDIMInversion(self.prompt, self.refinements, self.steps)
