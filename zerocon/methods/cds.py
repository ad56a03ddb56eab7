"""Contrastive Denoising Score (Nam et al. 2024): DDS, held to the source's structure by CUT."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import run_for_taps, told
from zerocon.core.prompts import edited_tokens
from zerocon.inversions.base import Trajectory
from zerocon.losses.base import Losses, Moment
from zerocon.losses.gradients import Latents, gradients
from zerocon.methods.dds import DDS, Noising


@dataclass(frozen=True, kw_only=True)
class CDS(DDS):
    """The losses compare the self-attention of both conditional rows at each descent."""

    loss: Losses

    def _slope(
        self,
        backbone: Backbone,
        trajectory: Trajectory,
        conditions: Conditions,
        draws: Draws,
        z: Tensor,
        noising: Noising,
    ) -> Tensor:
        weights = self.loss.weights(noising.number, self.steps)
        moment = Moment(noising.number, self.steps, draws, edited_tokens(conditions))
        with self.loss.watching(backbone.taps, weights, stop=False) as watch:
            slope = super()._slope(backbone, trajectory, conditions, draws, z, noising)
            reference = watch("source")
        if not any(weights.values()):
            return slope

        def loss_at(noisy: Latents) -> Tensor:
            with self.loss.watching(backbone.taps, weights, stop=True) as watch:
                text = told(backbone, conditions.target, self.guidance)
                rows = {"target": (noisy["target"], text)}
                run_for_taps(backbone, noising.level, rows)
                return self.loss(watch("target"), reference, weights, moment)

        held = gradients(loss_at, {"target": noising(z)}, backbone.dtype)["target"]
        return slope + noising.level.signal * held  # ∂ z_t / ∂ z
