"""The source's rows, which losses compare the edit's with: a step ahead of the edit's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.forward import Rows, predict
from zerocon.core.levels import Guess, Level
from zerocon.core.sampling import Guesses
from zerocon.losses.base import Beside, Look, Losses, View


@dataclass(frozen=True, eq=False)
class SourceAt:
    """The source at the start of a step: its latent, its guess, what the losses read of it."""

    z: Tensor
    guess: Guess
    views: Mapping[str, View]


@dataclass(eq=False)
class Reference:
    """What the losses compare the edit with, step by step.

    The source does not depend on the edit. So its rows of the next step take the same forward
    pass as the edit's of this one (`beside`), and only those of the first step take their own.
    """

    losses: Losses
    backbone: Backbone
    steps: int
    look: Callable[[int, Tensor], Look]  # the source's rows, by the step and its latent there
    guess: Callable[[Guesses], Guess]  # the source's, of those of its rows
    after: Callable[[int, Tensor, Guess], Tensor | None]  # its latent after a step, if known
    _found: dict[int, SourceAt] = field(default_factory=dict[int, SourceAt])

    def at(self, step: int, z: Tensor) -> SourceAt:
        """The source at the start of a step, `z` its latent there."""
        if step not in self._found:
            self._run(step, z)
        return self._found[step]

    def beside(self, step: int, level: Level, rows: Rows) -> Guesses:
        """The guesses of the edit's rows at a step; the source's of the next step come along.

        What the losses read of the source at this step is no longer kept.
        """
        now = self._found.pop(step, None)
        following = step + 1
        z = self.after(step, now.z, now.guess) if now and following < self.steps else None
        if z is None:
            return predict(self.backbone, level, rows) if rows else {}
        return self._run(following, z, Beside(level, rows))

    def _run(self, step: int, z: Tensor, beside: Beside | None = None) -> Guesses:
        look = self.look(step, z)
        found, views = self.losses.seen(self.backbone, look, whole=True, beside=beside)
        self._found[step] = SourceAt(z, self.guess(found), views)
        return found
