"""h-Edit (Nguyen et al. 2025): a step back to the picture, and one from source to target."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import ConfigError, in_range, one_of
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.forward import guidance_is_told, needs_negative, predict, told
from zerocon.core.levels import Guess, Level, noisy_mean
from zerocon.core.sampling import Branches, Guesses
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used
from zerocon.methods.p2p import P2P, Control


@dataclass(frozen=True)
class HEdit(P2P):
    """The base step is the source prompt's (`source_guidance`) with what it takes to return to
    the picture. To it comes the step by `guidance`'s noise of the target prompt less that of the
    source prompt at `correction_guidance`, with the maps of Prompt-to-Prompt, whose settings
    the others are; without any of them no source branch is sampled.

    `form`: the correction is evaluated where the base step leads (`implicit`) or where it comes
    from (`explicit`). Implicit corrections may be repeated (`corrections`), each but the first
    held to the base step by the share `reconstruction` of its own size. `ahead`: if inversion
    leaves out the first steps, correct the start as if by the step before it.
    """

    source_guidance: float | None = 1.0
    correction_guidance: float = 5.0
    form: Literal["implicit", "explicit"] = "implicit"
    corrections: int = 1
    reconstruction: float = 0.1
    ahead: bool = False
    self_attention: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("method.correction_guidance", self.correction_guidance, 0, 100)
        one_of("method.form", self.form, ("implicit", "explicit"))
        in_range("method.corrections", self.corrections, 1, 100)
        in_range("method.reconstruction", self.reconstruction, 0)
        if self.form == "explicit" and (self.corrections > 1 or self.ahead):
            raise ConfigError(
                "method.corrections and method.ahead are for method.form=implicit; "
                "with method.form=explicit leave them at 1 and false"
            )

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "target"}
        if self.controls:
            used |= {"source_row", "target_words"}
        if {self.guidance, self.correction_guidance, self._source_guidance} != {1.0}:
            used.add("negative")
        return frozenset(used)

    @property
    def base_guidance(self) -> float:
        return self._source_guidance

    @property
    def controls(self) -> bool:
        """Whether anything of Prompt-to-Prompt is asked for."""
        return bool(self.cross or self.cross_words or self.self_attention or self.local_blend)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        steps = len(trajectory.path)
        control = self.control(backbone, conditions, steps) if self.controls else None
        walk = _Walk(self, backbone, trajectory, conditions, control)

        def blended(step: int, z: Branches) -> Branches:
            return control.blended(step, z) if control else z

        def corrected(step: int, z: Branches) -> Branches:
            return blended(step, z | {"edit": walk.corrected(step, z)})

        start = trajectory.starts(*(("source", "edit") if control else ("edit",)))
        if self.form == "explicit":
            return trajectory.sample(start, walk.base_and_correction, after=blended)
        if self.ahead and steps < self.steps:
            start["edit"] = walk.ahead(backbone.path(self.steps).levels[self.steps - steps - 1])
        return trajectory.sample(start, walk.base, after=corrected)


@dataclass(frozen=True, eq=False)
class _Walk:
    """One batch on its way."""

    method: HEdit
    backbone: Backbone
    trajectory: Trajectory
    conditions: Conditions
    control: Control | None

    def base(self, step: int, z: Branches, level: Level) -> Guesses:
        """Every branch under the source prompt."""
        negative = self._negative(step)
        text = self._told(self.conditions.source, self.method.base_guidance)
        rows = {name: (latent, text) for name, latent in z.items()}
        if needs_negative(self.backbone, self.method.base_guidance):
            rows |= {f"{name}_negative": (latent, negative) for name, latent in z.items()}
        found = predict(self.backbone, level, rows)
        return {name: self._base(found, name, f"{name}_negative") for name in z}

    def base_and_correction(self, step: int, z: Branches, level: Level) -> Guesses:
        """The explicit form: both are of the same latent, so one pass gives both."""
        rows = self._rows(z, self._negative(step))
        plain, base = "plain", self.method.base_guidance
        if self.control and needs_negative(self.backbone, base):
            rows |= {"source_negative": (z["source"], self._negative(step))}
        if guidance_is_told(self.backbone):  # the correction's is told another scale
            plain = "base"
            rows |= {"base": (z["edit"], self._told(self.conditions.source, base))}
        with self._controlled(step, last=True):
            found = predict(self.backbone, level, rows)
        guesses = {"edit": self._base(found, plain, "negative") + self._correction(found)}
        if self.control:
            guesses["source"] = self._base(found, "source", "source_negative")
        return guesses

    def corrected(self, step: int, z: Branches) -> Tensor:
        """The edit after the base step, corrected where it is."""
        here, there = self.trajectory.path.steps[step]
        # The ∅ of the level that the network is told; the last step lands where there is none.
        negative = self._negative(min(step + 1, len(self.trajectory.path) - 1))
        base = moved = z["edit"]
        for number in range(self.method.corrections):
            rows = self._rows(z | {"edit": moved}, negative)
            with self._controlled(step, last=number == self.method.corrections - 1):
                correction = self._correction(predict(self.backbone, there, rows))
            if number:
                moved = moved - self.method.reconstruction * _pull(moved - base, correction, there)
            moved = moved + self._step(correction, here, there)
        return moved

    def ahead(self, before: Level) -> Tensor:
        """The start of the edit, corrected as by the step from `before`; without maps."""
        z, level = self.trajectory.start, self.trajectory.path.levels[0]
        rows = self._rows({"edit": z}, self._negative(0))
        correction = self._correction(predict(self.backbone, level, rows))
        return z + self._step(correction, before, level)

    def _rows(self, z: Branches, negative: Condition) -> dict[str, tuple[Tensor, Condition]]:
        """The correction's, and the source's branch, which is told the base step's scale."""
        rows = {
            "negative": (z["edit"], negative),
            "target": (z["edit"], self._told(self.conditions.target, self.method.guidance)),
            "plain": (
                z["edit"],
                self._told(self.conditions.source, self.method.correction_guidance),
            ),
        }
        if guidance_is_told(self.backbone):
            del rows["negative"]
        text = self._told(self.conditions.source, self.method.base_guidance)
        source = {"source": (z["source"], text)} if "source" in z else {}
        return source | rows

    def _told(self, text: Condition, scale: float) -> Condition:
        return told(self.backbone, text, scale)

    @contextmanager
    def _controlled(self, step: int, *, last: bool) -> Generator[None]:
        """Maps are replaced at every correction; the last one's count for blending."""
        if self.control is None:
            yield
        elif last:
            with self.control.active(step), self.control.blending():
                yield
        else:
            with self.control.active(step):
                yield

    def _negative(self, step: int) -> Condition:
        return self.trajectory.negative(step, self.conditions.negative)

    def _base(self, found: Guesses, text: str, negative: str) -> Guess:
        if self.method.base_guidance == 1.0:
            return found[text]
        return self.trajectory.guided_role(found, text, negative, self.method.base_guidance)

    def _correction(self, found: Guesses) -> Guess:
        """From the source prompt's guess to the target prompt's."""
        guided = self.trajectory.guided_role
        target = guided(found, "target", "negative", self.method.guidance)
        return target - guided(found, "plain", "negative", self.method.correction_guidance)

    def _step(self, difference: Guess, here: Level, there: Level) -> Tensor:
        """How much further the step from `here` to `there` leads with a difference of guesses."""
        own = difference.seen_from(torch.zeros_like(difference.clean), here)
        return noisy_mean(own, here, there) if self.trajectory.noisy else own.at(there)


def _pull(away: Tensor, correction: Guess, level: Level) -> Tensor:
    """The slope of the mean of |away|, as large as the correction (root mean square), by case."""
    slope = away.sign() / away[0].numel()
    return (
        _size(correction.velocity if level.flow else correction.noise)
        / (_size(slope) + 1e-8)
        * slope
    )


def _size(x: Tensor) -> Tensor:
    return x.square().mean((1, 2, 3), keepdim=True).sqrt()
