"""pix2pix-zeroCon (arXiv 2503.20484); without the contrastive loss, pix2pix-zero (2302.03027).

The edit is sampled beside its source. At every step the edit's latent first moves down the
gradient of the losses between its activations in the U-Net and the source's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.diffusion import at_least_single
from zerocon.core.forward import look, predict
from zerocon.core.words import edited_tokens
from zerocon.inversions.base import Trajectory
from zerocon.losses.terms import Losses, Moment, View
from zerocon.methods.base import Used

Latents = dict[str, Tensor]  # role -> its latents; the paper has one latent in both roles


@dataclass(frozen=True)
class ZeroCon:
    """`update`: the paper moves one latent by the conditional branch's loss; the published code
    of pix2pix-zero (`per_branch`) moves the two branches' copies apart, each by its own.

    `gradient`: as it is; `normalised` to a root mean square of `gradient_size`; or `clipped`
    to it. `reevaluate`: ask for the noise again at the moved latent, or take the one before.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    loss: Losses
    steps: int = 50
    guidance: float = 7.5
    source_guidance: float = 1.0
    negative: Literal["empty", "caption"] = "empty"
    update: Literal["paper", "per_branch"] = "paper"
    gradient: Literal["plain", "normalised", "clipped"] = "plain"
    gradient_size: float = 0.05
    gradient_steps: int = 1
    reevaluate: bool = True

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.source_guidance", self.source_guidance, 0, 100)
        in_range("method.gradient_size", self.gradient_size, 0)
        in_range("method.gradient_steps", self.gradient_steps, 1, 100)
        one_of("method.negative", self.negative, ("empty", "caption"))
        one_of("method.update", self.update, ("paper", "per_branch"))
        one_of("method.gradient", self.gradient, ("plain", "normalised", "clipped"))

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target"}
        if self.negative == "empty" and (self.guidance, self.source_guidance) != (1.0, 1.0):
            used.add("negative")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        changed = edited_tokens(conditions)
        source = z = trajectory.start
        for i, time in enumerate(trajectory.schedule.times):
            empty = conditions.negative if self.negative == "empty" else conditions.source
            texts = {
                "negative": trajectory.negative(i, empty),
                "source": conditions.source,
                "target": conditions.target,
            }
            moment = Moment(i, len(trajectory.schedule), draws, changed)
            weights = self.loss.weights(i, len(trajectory.schedule))
            with self.loss.watching(backbone.taps, weights, stop=False) as watch:
                theirs = self._source_noise(backbone, time, source, texts, trajectory)
                reference = {role: watch(role) for role in self._source_roles()}

            before = {"negative": z, "target": z}
            moved = self._moved(backbone, time, before, texts, reference, weights, moment)
            at = moved if self.reevaluate else before
            pairs = {role: (latents, texts[role]) for role, latents in at.items()}
            noise = predict(backbone, time, pairs)
            eps = trajectory.guided(noise["negative"], noise["target"], self.guidance)
            ours = moved["negative"], eps  # the same latent in both roles, in the paper
            source, z = trajectory.both_steps(i, (source, theirs), ours)
        return z

    def _source_roles(self) -> tuple[str, ...]:
        """Which rows the source's branch needs: published, it is guided too."""
        alone = self.source_guidance == 1.0 and self.update == "paper"
        return ("source",) if alone else ("negative", "source")

    def _source_noise(
        self,
        backbone: Backbone,
        time: int,
        source: Tensor,
        texts: dict[str, Tensor],
        trajectory: Trajectory,
    ) -> Tensor:
        noise = predict(
            backbone, time, {role: (source, texts[role]) for role in self._source_roles()}
        )
        if "negative" not in noise:
            return noise["source"]
        return trajectory.guided(noise["negative"], noise["source"], self.source_guidance)

    def _moved(
        self,
        backbone: Backbone,
        time: int,
        latents: Latents,
        texts: dict[str, Tensor],
        reference: dict[str, View],
        weights: tuple[float, float],
        moment: Moment,
    ) -> Latents:
        """The latents after descending the losses at this step."""
        if not any(weights):
            return latents
        # Which role of the source each branch of the edit is compared with.
        compared = {"target": "source"}
        if self.update == "per_branch":
            compared = {"negative": "negative", "target": "source"}

        def loss_at(moving: Latents) -> Tensor:
            with self.loss.watching(backbone.taps, weights, stop=True) as watch:
                look(backbone, time, {role: (x, texts[role]) for role, x in moving.items()})
                losses = [
                    self.loss(watch(role), reference[theirs], weights, moment)
                    for role, theirs in compared.items()
                ]
            return torch.stack(losses).mean(0)

        moving = {role: latents[role] for role in compared}
        for _ in range(self.gradient_steps):
            slopes = gradients(loss_at, moving)
            moving = {role: x - self._sized(slopes[role]).to(x) for role, x in moving.items()}
        return {"negative": moving["target"], **moving}

    def _sized(self, slope: Tensor) -> Tensor:
        if self.gradient == "plain":
            return slope
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        if self.gradient == "normalised":
            return slope / size * self.gradient_size
        return slope * (self.gradient_size / size).clamp(max=1.0)


def gradients(loss_at: Callable[[Latents], Tensor], latents: Latents) -> Latents:
    """∂ loss / ∂ latents, at least in single precision; none for a case whose loss overflows.

    In half precision the loss is scaled up on its way back, so that small slopes survive.
    """
    half = any(x.dtype == torch.float16 for x in latents.values())
    scale = 256.0 if half else 1.0
    leaves = {role: x.detach().requires_grad_() for role, x in latents.items()}
    with torch.enable_grad():
        total = loss_at(leaves).sum() * scale
    slopes = torch.autograd.grad(total, list(leaves.values()))
    return {
        role: _finite(at_least_single(s) / scale) for role, s in zip(leaves, slopes, strict=True)
    }


def _finite(slope: Tensor) -> Tensor:
    whole = slope.isfinite().flatten(1).all(1)[:, None, None, None]
    return torch.where(whole, slope, torch.zeros_like(slope))
