"""A trajectory, what it takes to walk it back, and what makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.levels import Guess, Level, Path, guided
from zerocon.core.sampling import (
    Branches,
    Guesses,
    Solver,
    StepEvaluate,
    StepHook,
    sample,
    unchanged,
)
from zerocon.core.solvers import Euler, WithNoise, WithResiduals

# What an inversion can give that a method may or may not make use of: noisy latents, a negative
# condition for each step, a source branch that is put back onto its trajectory.
Provided = Literal["trajectory", "negative", "source_row"]


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
        if self.residuals is not None:
            return WithResiduals(self.path, self.residuals)
        if self.noises is not None:
            return WithNoise(self.path, self.noises)
        return Euler(self.path)

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
        }
        return {name: part for name, part in tensors.items() if part is not None}, rest

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> Self:
        """The trajectory that `stored` gave this of."""
        prefix = "negatives."
        negatives = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        settings = dict(rest)
        path = Path(tuple(Level(**level) for level in settings.pop("levels")))
        return cls(
            path,
            tensors["latents"],
            Condition(**negatives) if negatives else None,
            tensors.get("noises"),
            tensors.get("residuals"),
            **settings,
        )


def proximal_share(difference: Tensor, quantile: float, *, shrink: bool) -> Tensor:
    """What share is kept of each value: none below the case's quantile of sizes.

    Larger values stay (hard threshold) or shrink by the quantile (soft threshold).
    """
    sizes = difference.abs()
    limit = sizes.flatten(1).float().quantile(quantile, dim=1).to(sizes.dtype)[:, None, None, None]
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
