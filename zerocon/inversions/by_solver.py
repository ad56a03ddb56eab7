"""Inversions defined by a solver: Euler, RF-Solver, FireFlow, Uni-Inv, FTEdit.

As in the papers, RF-Solver and FireFlow also sample with their solver; Uni-Inv and FTEdit sample
with Euler's step (DDIM's on a diffusion model).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone, Times, middles_of, path_of
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict_guided
from zerocon.core.levels import Level, Path
from zerocon.core.sampling import Branches, Guesses, Solver
from zerocon.core.solvers import Corrector, Euler, FireFlow, FixedPoint, Midpoint
from zerocon.inversions.base import Provided, Trajectory, WayBack


@dataclass(frozen=True, kw_only=True)
class InversionBySolver:
    """Inverts through the sampler's levels, over the share `share` of the steps.

    `prompt` and `guidance` are those of the inversion. `times`: the sampler's levels.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})
    uses_draws: ClassVar[bool] = False  # the same for every seed and case id
    way_back: ClassVar[WayBack] = "euler"

    prompt: Literal["source", "empty"] = "source"
    guidance: float = 1.0
    share: float = 1.0
    times: Times = "model"

    def __post_init__(self) -> None:
        one_of("inversion.prompt", self.prompt, ("source", "empty"))
        in_range("inversion.guidance", self.guidance, 0, 100)
        in_range("inversion.share", self.share, 0, 1)
        one_of("inversion.times", self.times, ("model", "even"))

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        path = path_of(backbone, steps, self.times).tail(max(1, round(self.share * steps)))
        middles = middles_of(backbone, path)
        text = conditions.source if self.prompt == "source" else conditions.negative

        def evaluate(z: Branches, level: Level) -> Guesses:
            asked = z["source"], conditions.negative, text, self.guidance
            return {"source": predict_guided(backbone, level, *asked)}

        solver, z, latents = self.solver(path.upwards, middles[::-1]), {"source": clean}, [clean]
        for i in range(len(path)):
            z = solver.step(i, z, evaluate)
            latents.append(z["source"])
        needed = () if self.way_back == "euler" else middles
        return Trajectory(
            path,
            torch.stack(latents),
            way_back=self.way_back,
            middles=needed,
            guidance=self.guidance,
        )

    @abstractmethod
    def solver(self, path: Path, middles: tuple[Level, ...]) -> Solver:
        """The solver of this path; `middles` are the levels at its steps' midpoints."""


@dataclass(frozen=True, kw_only=True)
class EulerInversion(InversionBySolver):
    """Euler's steps: the velocity at each step's cleaner level, where the latent stands."""

    def solver(self, path: Path, middles: tuple[Level, ...]) -> Solver:
        return Euler(path)


@dataclass(frozen=True, kw_only=True)
class RFSolverInversion(InversionBySolver):
    """RF-Solver (Wang et al. 2024): midpoint steps in both directions, two evaluations each."""

    way_back: ClassVar[WayBack] = "midpoint"

    def solver(self, path: Path, middles: tuple[Level, ...]) -> Solver:
        return Midpoint(path, middles)


@dataclass(frozen=True, kw_only=True)
class FireFlowInversion(InversionBySolver):
    """FireFlow (Deng et al. 2024): midpoint steps that reuse the previous step's velocity."""

    way_back: ClassVar[WayBack] = "fireflow"

    def solver(self, path: Path, middles: tuple[Level, ...]) -> Solver:
        return FireFlow(path, middles)


@dataclass(frozen=True, kw_only=True)
class UniInversion(InversionBySolver):
    """Uni-Inv (Jiao et al. 2025): the velocity at a step's predicted end. `zero_start`, an option
    of the published code: the first predicted end is the latent itself."""

    zero_start: bool = False

    def solver(self, path: Path, middles: tuple[Level, ...]) -> Solver:
        return Corrector(path, self.zero_start)


@dataclass(frozen=True, kw_only=True)
class FixedPointInversion(InversionBySolver):
    """FTEdit (Xu et al. 2025): the mean of `evaluations` at each step's noisier level."""

    evaluations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("inversion.evaluations", self.evaluations, 1, 100)

    def solver(self, path: Path, middles: tuple[Level, ...]) -> Solver:
        return FixedPoint(path, self.evaluations)
