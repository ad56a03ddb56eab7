"""Contrastive Denoising Score (Nam et al. 2024): DDS, held to the source's structure by CUT."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import Rows, told
from zerocon.core.prompts import edited_tokens
from zerocon.inversions.base import Trajectory
from zerocon.losses.base import Look, Losses, Moment, View
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

        def views(rows: Rows) -> dict[str, View]:
            look = Look(noising.level, rows, weights, conditions.negative)
            return self.loss.seen(backbone, look, whole=False)[1]

        if self.loss.look_at_zero(weights):  # of the source alone: the score's rows are guided
            text = told(backbone, conditions.source, self.guidance)
            reference = views({"source": (noising(trajectory.clean), text)})["source"]

        def loss_at(noisy: Latents) -> Tensor:
            text = told(backbone, conditions.target, self.guidance)
            edit = views({"target": (noisy["target"], text)})["target"]
            return self.loss(edit, reference, weights, moment)

        held = gradients(loss_at, {"target": noising(z)}, backbone.dtype)["target"]
        return slope + noising.level.signal * held  # ∂ z_t / ∂ z
