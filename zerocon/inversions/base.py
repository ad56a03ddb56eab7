"""A trajectory, what it takes to walk it back, and what makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.levels import Guess, Level, Path, at_least_single, guided
from zerocon.core.sampling import (
    Branches,
    Guesses,
    Solver,
    StepEvaluate,
    StepHook,
    sample,
    unchanged,
)
from zerocon.core.solvers import Euler, FireFlow, Midpoint, WithNoise, WithResiduals

# What an inversion can give that a method may or may not make use of: noisy latents, a negative
# condition for each step, a source branch that is put back onto its trajectory.
Provided = Literal["trajectory", "negative", "source_row"]

# The solver that samples from a trajectory without noise maps.
WayBack = Literal["euler", "midpoint", "fireflow"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The source's latents under an inversion, and how sampling walks back from its start.

    `latents` is [step + 1, case, channel, y, x], cleanest first: `latents[0]` is the encoded
    picture, `latents[-1]` what sampling starts from. Samplers count their steps from the start:
    step 0 leaves `latents[-1]`.
    """

    path: Path
    latents: Tensor
    negatives: Condition | None = None  # the ∅ of each step: [step, case, …]
    noises: Tensor | None = None  # of a sampler that adds noise, [step, case, channel, y, x]
    residuals: Tensor | None = None  # or what it adds as it is, not in units of each step's σ
    pinned: bool = False  # the source branch is put back onto the latents after each step
    pulled: bool = False  # and the edit moves by as much
    proximal: float | None = None  # quantile below which guidance's differences are dropped
    shrink: bool = False  # soft threshold instead of hard
    way_back: WayBack = "euler"
    middles: tuple[Level, ...] = ()  # halfway through each step, for a way back that asks there

    @property
    def clean(self) -> Tensor:
        return self.latents[0]

    @property
    def start(self) -> Tensor:
        return self.latents[-1]

    def starting_from(self, z: Tensor) -> Self:
        """The same way back, but from the latents `z`, [case, channel, y, x]."""
        return replace(self, latents=torch.cat([self.latents[:-1], z[None].to(self.latents)]))

    def starts(self, *branches: str) -> Branches:
        """These branches where sampling starts."""
        return dict.fromkeys(branches, self.start)

    def before(self, step: int) -> Tensor:
        """The source's latent that sampling step `step` leaves."""
        return self.latents[len(self.path) - step]

    def source_at(self, step: int, level: Level) -> Tensor:
        """The source's latent at a level within sampling step `step`, on a straight line."""
        here, there = self.path.steps[step]
        if level == here:
            return self.before(step)
        share = (level.t - here.t) / (there.t - here.t)
        ends = self.before(step) / here.scale, self.before(step + 1) / there.scale
        return level.scale * torch.lerp(*ends, share)

    def tail(self, count: int) -> Self:
        """What is left of it for the last `count` steps; all of it where it has no more."""
        count = min(count, len(self.path))
        first = len(self.path) - count
        return replace(
            self,
            path=self.path.tail(count),
            latents=self.latents[: count + 1],
            negatives=None if self.negatives is None else self.negatives[first:],
            noises=None if self.noises is None else self.noises[first:],
            residuals=None if self.residuals is None else self.residuals[first:],
            middles=self.middles[first:],
        )

    def negative(self, step: int, otherwise: Condition) -> Condition:
        return otherwise if self.negatives is None else self.negatives[step]

    def guided(self, negative: Guess, positive: Guess, scale: float) -> Guess:
        """`∅ + w (c - ∅)`; with proximal guidance, of the larger differences only."""
        if self.proximal is None:
            return guided(negative, positive, scale)
        difference = positive - negative
        predicted = difference.velocity if self.path.levels[0].flow else difference.noise
        kept = proximal_share(predicted, self.proximal, shrink=self.shrink)
        return negative + scale * (difference * kept)

    def both_guided(self, found: Guesses, edit: float, source: float) -> Guesses:
        """The guided guesses of `both_branches`' rows, each branch at its own scale."""
        return {
            "source": self.guided(found["source_negative"], found["source"], source),
            "edit": self.guided(found["negative"], found["target"], edit),
        }

    @property
    def solver(self) -> Solver:
        """A new one: some keep what they have found in the step before."""
        if self.residuals is not None:
            return WithResiduals(self.path, self.residuals)
        if self.noises is not None:
            return WithNoise(self.path, self.noises)
        if self.way_back == "euler":
            return Euler(self.path)
        make = Midpoint if self.way_back == "midpoint" else FireFlow
        return make(self.path, self.middles)

    @property
    def noisy(self) -> bool:
        """Whether the steps of the way back are those at η = 1."""
        return self.noises is not None or self.residuals is not None

    def sample(
        self,
        start: Branches,
        evaluate: StepEvaluate,
        *,
        before: StepHook = unchanged,
        after: StepHook = unchanged,
    ) -> Tensor:
        """The branch "edit" after the last step."""

        def settled(step: int, z: Branches) -> Branches:
            return after(step, self.settled(step, z))

        steps = len(self.path)
        return sample(self.solver, steps, start, evaluate, before=before, after=settled)["edit"]

    def settled(self, step: int, z: Branches) -> Branches:
        """The branches after a step: a pinned source is back on its trajectory."""
        if not self.pinned or "source" not in z:
            return z
        kept = self.before(step + 1)
        if self.pulled and "edit" in z:
            z = z | {"edit": z["edit"] + (kept - z["source"])}
        return z | {"source": kept}

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All of it, for storing: its tensors, and the rest as plain JSON."""
        negatives = self.negatives.parts if self.negatives else {}
        tensors = {
            "latents": self.latents,
            "noises": self.noises,
            "residuals": self.residuals,
        } | {f"negatives.{name}": part for name, part in negatives.items()}
        rest = {
            "levels": [asdict(level) for level in self.path.levels],
            "pinned": self.pinned,
            "pulled": self.pulled,
            "proximal": self.proximal,
            "shrink": self.shrink,
            "way_back": self.way_back,
            "middles": [asdict(level) for level in self.middles],
        }
        return {name: part for name, part in tensors.items() if part is not None}, rest

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> Self:
        """The trajectory that `stored` gave this of."""
        prefix = "negatives."
        negatives = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        settings = dict(rest)
        levels, middles = (
            tuple(Level(**level) for level in settings.pop(name, ()))
            for name in ("levels", "middles")
        )
        return cls(
            Path(levels),
            tensors["latents"],
            Condition(**negatives) if negatives else None,
            tensors.get("noises"),
            residuals=tensors.get("residuals"),
            middles=middles,
            **settings,
        )


def proximal_share(difference: Tensor, quantile: float, *, shrink: bool) -> Tensor:
    """What share is kept of each value: none below the case's quantile of sizes.

    Larger values stay (hard threshold) or shrink by the quantile (soft threshold).
    """
    sizes = difference.abs()
    limits = at_least_single(sizes.flatten(1)).quantile(quantile, dim=1)
    limit = limits.to(sizes.dtype)[:, None, None, None]
    if shrink:
        return (sizes - limit).clamp(min=0) / sizes.clamp(min=torch.finfo(sizes.dtype).tiny)
    return (sizes > limit).to(sizes.dtype)


class Inversion(Protocol):
    provides: ClassVar[frozenset[Provided]]

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        """The trajectory of `clean`, [case, channel, y, x], in `steps` steps."""
        ...


@runtime_checkable
class FittedToGuidance(Protocol):
    """An inversion whose trajectory returns under one guidance only."""

    @property
    def fitted_guidance(self) -> float: ...


@runtime_checkable
class FittedToSteps(Protocol):
    """An inversion that may name its own times."""

    @property
    def fitted_steps(self) -> int | None:
        """How many, if it does; the method's steps must be as many."""
        ...
