"""Deterministic DDIM inversion (Song et al. 2020; Dhariwal & Nichol 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Provided, Trajectory


@dataclass(frozen=True)
class DDIMInversion:
    """The sampler's step run backwards, at guidance 1.

    `prompt`: under the source condition, or the empty one (Plug-and-Play). `refinements`:
    how often each step is repeated with what the network predicts at its result, towards the
    fixed point from which sampling returns exactly.
    """

    provides: ClassVar[frozenset[Provided]] = frozenset({"trajectory"})
    uses_draws: ClassVar[bool] = False  # the same for every seed and case id

    prompt: Literal["source", "empty"] = "source"
    refinements: int = 0

    def __post_init__(self) -> None:
        one_of("inversion.prompt", self.prompt, ("source", "empty"))
        in_range("inversion.refinements", self.refinements, 0, 100)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        cond = conditions.source if self.prompt == "source" else conditions.negative
        path = backbone.path(steps)
        z, latents = clean, [clean]
        for noisier, here in reversed(path.steps):
            # As every published implementation: the network sees the time it goes *to*.
            guess = backbone.predict(z, noisier, cond).seen_from(z, here)
            for _ in range(self.refinements):
                guess = backbone.predict(guess.at(noisier), noisier, cond).seen_from(z, here)
            z = guess.at(noisier)
            latents.append(z)
        return Trajectory(path, torch.stack(latents))
