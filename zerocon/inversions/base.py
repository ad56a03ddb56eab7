"""Trajectories and the interface of inversions."""

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
    Evaluate,
    Guesses,
    Solver,
    StepEvaluate,
    StepHook,
    sample,
    unchanged,
)
from zerocon.core.solvers import Euler, FireFlow, Midpoint, WithNoise, WithResiduals

# What an inversion may provide and a method may use: noisy latents, a negative condition per
# step, a source branch that is reset to its trajectory.
Provided = Literal["trajectory", "negative", "source_row"]

# Makes the solver that samples from a trajectory without noise maps.
WayBack = Literal["euler", "midpoint", "fireflow"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The source's latents under an inversion, and what sampling from its start needs.

    `latents` is [step + 1, case, channel, y, x], cleanest first: `latents[0]` is the encoded
    picture, `latents[-1]` the start of sampling. Sampling steps are counted from there: step 0
    starts at `latents[-1]`.
    """

    path: Path
    latents: Tensor
    negatives: Condition | None = None  # a ∅ per step: [step, case, …]
    noises: Tensor | None = None  # noise maps of a stochastic sampler, [step, case, channel, y, x]
    residuals: Tensor | None = None  # or its added noise without division by each step's σ
    pinned: bool = False  # the source branch is reset to the latents after each step
    pulled: bool = False  # and the edit is moved by the same difference
    proximal: float | None = (
        None  # quantile below which differences are dropped in proximal guidance
    )
    shrink: bool = False  # soft threshold instead of hard
    way_back: WayBack = "euler"
    middles: tuple[Level, ...] = ()  # midpoints of the steps, for solvers that evaluate there
    guidance: float = 1.0  # of the inversion

    @property
    def clean(self) -> Tensor:
        return self.latents[0]

    @property
    def start(self) -> Tensor:
        return self.latents[-1]

    def starting_from(self, z: Tensor) -> Self:
        """The trajectory with another start of sampling, `z` [case, channel, y, x]."""
        return replace(self, latents=torch.cat([self.latents[:-1], z[None].to(self.latents)]))

    def starts(self, *branches: str) -> Branches:
        """These branches at the start of sampling."""
        return dict.fromkeys(branches, self.start)

    def before(self, step: int) -> Tensor:
        """The source's latent at the start of sampling step `step`."""
        return self.latents[len(self.path) - step]

    def source_at(self, step: int, level: Level) -> Tensor:
        """The source's latent at a level within sampling step `step`, by linear interpolation."""
        here, there = self.path.steps[step]
        if level == here:
            return self.before(step)
        share = (level.t - here.t) / (there.t - here.t)
        ends = self.before(step) / here.scale, self.before(step + 1) / there.scale
        return level.scale * torch.lerp(*ends, share)

    def tail(self, count: int) -> Self:
        """The trajectory of the last `count` steps, or all of it if it has no more."""
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
        """`∅ + w (c - ∅)`; with proximal guidance, only the larger differences."""
        if self.proximal is None:
            return guided(negative, positive, scale)
        difference = positive - negative
        predicted = difference.velocity if self.path.levels[0].flow else difference.noise
        kept = proximal_share(predicted, self.proximal, shrink=self.shrink)
        return negative + scale * (difference * kept)

    def both_guided(self, found: Guesses, edit: float, source: float) -> Guesses:
        """The guided guesses of `branch_rows`' rows, with a scale per branch."""
        return {
            "source": self.guided_role(found, "source", "source_negative", source),
            "edit": self.guided_role(found, "target", "negative", edit),
        }

    def guided_role(self, found: Guesses, role: str, negative: str, scale: float) -> Guess:
        """A role's guess, guided if there is a row with the negative condition beside it."""
        if negative not in found:
            return found[role]
        return self.guided(found[negative], found[role], scale)

    @property
    def solver(self) -> Solver:
        """A new solver, as some keep values of the previous step."""
        if self.residuals is not None:
            return WithResiduals(self.path, self.residuals)
        if self.noises is not None:
            return WithNoise(self.path, self.noises)
        if self.way_back == "euler":
            return Euler(self.path)
        make = Midpoint if self.way_back == "midpoint" else FireFlow
        return make(self.path, self.middles)

    def source_after(self, step: int, z: Tensor, guess: Guess) -> Tensor | None:
        """Where the source is after a step, from its guess at the step's start.

        None if the solver has to ask again within the step.
        """
        if self.pinned:
            return self.before(step + 1)
        if self.way_back != "euler":
            return None

        def known(_z: Branches, _level: Level) -> Guesses:
            return {"source": guess}

        return self.solver.step(step, {"source": z}, known)["source"]

    def retrace(self, step: int, evaluate: Evaluate) -> None:
        """Ask again what the inversion asked, in the step up that sampling step `step` leads down.

        Midpoint and FireFlow ask at the step's clean end (FireFlow in its first step only) and in
        the middle of it. Of other inversions only the latents are known: the one at the noisy end.
        """
        if self.way_back == "euler":
            evaluate({"source": self.before(step)}, self.path.steps[step][0])
            return
        up, number = self.path.upwards, len(self.path) - 1 - step
        solver: Solver = Midpoint(up, self.middles[::-1])
        if self.way_back == "fireflow":
            last = {"source": self._velocity_up(number - 1)} if number else {}
            solver = FireFlow(up, self.middles[::-1], last)
        solver.step(number, {"source": self.latents[number]}, evaluate)

    def _velocity_up(self, number: int) -> Tensor:
        """The velocity that the inversion's step `number` went along, in the common coordinate."""
        here, there = self.path.upwards.steps[number]
        moved = self.latents[number + 1] / there.scale - self.latents[number] / here.scale
        return moved / (there.t - here.t)

    @property
    def noisy(self) -> bool:
        """Whether sampling steps are at η = 1."""
        return self.noises is not None or self.residuals is not None

    def sample(
        self,
        start: Branches,
        evaluate: StepEvaluate,
        *,
        before: StepHook = unchanged,
        after: StepHook = unchanged,
    ) -> Tensor:
        """Sample the branch "edit" to the end."""

        def settled(step: int, z: Branches) -> Branches:
            return after(step, self.settled(step, z))

        steps = len(self.path)
        return sample(self.solver, steps, start, evaluate, before=before, after=settled)["edit"]

    def settled(self, step: int, z: Branches) -> Branches:
        """The branches after a step, with a pinned source reset to its trajectory."""
        if not self.pinned or "source" not in z:
            return z
        kept = self.before(step + 1)
        if self.pulled and "edit" in z:
            z = z | {"edit": z["edit"] + (kept - z["source"])}
        return z | {"source": kept}

    def stored(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Its content for storage: tensors, and the rest as plain JSON."""
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
            "guidance": self.guidance,
        }
        return {name: part for name, part in tensors.items() if part is not None}, rest

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> Self:
        """The trajectory from `stored`'s result."""
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
    """The share of each value to keep: 0 below the case's quantile of magnitudes.

    Larger values are kept (hard threshold) or reduced by the quantile (soft threshold).
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
        """Invert `clean`, [case, channel, y, x], in `steps` steps."""
        ...


@runtime_checkable
class FittedToGuidance(Protocol):
    """An inversion whose trajectory reconstructs at one guidance scale only."""

    @property
    def fitted_guidance(self) -> float: ...


@runtime_checkable
class FittedToSteps(Protocol):
    """An inversion that may define its own timesteps."""

    @property
    def fitted_steps(self) -> int | None:
        """The number of its own timesteps, which must equal the method's steps, or None."""
        ...
