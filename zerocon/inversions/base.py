"""A trajectory, what it takes to walk it back, and what makes one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.diffusion import Schedule, ddim_step, noisy_step

# What an inversion can give that a method may or may not make use of: noisy latents, an ∅ for
# each step, a source's row that is put back onto its trajectory.
Provided = Literal["trajectory", "negative", "source_row"]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The source's latents under an inversion, and how sampling walks back from its start.

    `latents` is [step + 1, case, channel, row, column], cleanest first: `latents[0]` is the
    encoded picture, `latents[-1]` what sampling starts from. Samplers count their steps from
    the start: step 0 leaves `latents[-1]`.
    """

    schedule: Schedule
    latents: Tensor
    negatives: Tensor | None = None  # the ∅ of each step, [step, case, token, width]
    noises: Tensor | None = None  # of a sampler that adds noise, [step, case, …]
    pinned: bool = False  # the source's row is put back onto the latents after each step
    pulled: bool = False  # and the edited row moves by as much
    proximal: float | None = None  # quantile below which guidance's differences are dropped
    shrink: bool = False  # and the others come closer to zero by that limit

    @property
    def clean(self) -> Tensor:
        return self.latents[0]

    @property
    def start(self) -> Tensor:
        return self.latents[-1]

    def before(self, step: int) -> Tensor:
        """The source's latent that sampling step `step` leaves."""
        return self.latents[len(self.schedule) - step]

    def negative(self, step: int, otherwise: Tensor) -> Tensor:
        return otherwise if self.negatives is None else self.negatives[step]

    def guided(self, negative: Tensor, positive: Tensor, scale: float) -> Tensor:
        """`ε(∅) + w (ε(c) - ε(∅))`; with proximal guidance, of the larger differences only."""
        difference = positive - negative
        if self.proximal is not None:
            difference = proximal(difference, self.proximal, shrink=self.shrink)
        return negative + scale * difference

    def step(self, step: int, z: Tensor, eps: Tensor) -> Tensor:
        """One sampling step of an edited row."""
        alpha, below = self.schedule.alphas[step : step + 2]
        if self.noises is None:
            return ddim_step(z, eps, alpha, below)
        return noisy_step(z, eps, self.noises[step], alpha, below)

    def both_steps(
        self, step: int, source: tuple[Tensor, Tensor], edited: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """One sampling step of the source's own row and of the edited one, each (z, ε)."""
        theirs, ours = self.step(step, *source), self.step(step, *edited)
        if not self.pinned:
            return theirs, ours
        kept = self.before(step + 1)
        return kept, ours + (kept - theirs) if self.pulled else ours


def proximal(difference: Tensor, quantile: float, *, shrink: bool = False) -> Tensor:
    """Drop what is smaller than the case's quantile of sizes.

    The rest stays as it is (l0), or shrinks by that limit.
    """
    sizes = difference.abs().flatten(1).float()
    limit = sizes.quantile(quantile, dim=1).to(difference.dtype)[:, None, None, None]
    if shrink:
        return difference - difference.clamp(-limit, limit)
    return difference * (difference.abs() > limit)


class Inversion(Protocol):
    provides: ClassVar[frozenset[Provided]]

    def __call__(
        self, backbone: Backbone, clean: Tensor, conditions: Conditions, steps: int, draws: Draws
    ) -> Trajectory:
        """The trajectory of `clean`, [case, channel, row, column], in `steps` steps."""
        ...


@runtime_checkable
class FittedToGuidance(Protocol):
    """An inversion whose trajectory is led back by one guidance only."""

    @property
    def fitted_guidance(self) -> float: ...
