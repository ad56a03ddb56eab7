"""pix2pix-zeroCon (arXiv 2503.20484); without the contrastive loss, pix2pix-zero (2302.03027).

The edit is sampled beside its source. At every step the edit's latent first moves down the
gradient of the losses between its activations in the U-Net and the source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range, one_of
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.forward import Rows, needs_negative, predict, told
from zerocon.core.levels import Level
from zerocon.core.prompts import edited_tokens
from zerocon.core.sampling import Branches, Guesses
from zerocon.inversions.base import Trajectory
from zerocon.losses.base import Look, Losses, Moment, View, Weights
from zerocon.losses.gradients import Latents, gradients
from zerocon.losses.reference import Reference
from zerocon.methods.base import Used


@dataclass(frozen=True)
class ZeroCon:
    """`update`: the paper moves one latent by the conditional branch's loss; the published code
    of pix2pix-zero (`per_branch`) moves the two branches' copies apart, each by its own. A network
    that is told its guidance has one branch only.

    `gradient`: as it is; `normalised` to a root mean square of `gradient_size`; or `clipped`
    to it; then times `gradient_scale`. `every`: descend at every so many-th step only.
    `reevaluate`: ask for the noise again at the moved latent, or take the one before, which the
    losses' pass finds on its way.
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
    gradient_scale: float = 1.0
    gradient_steps: int = 1
    every: int = 1
    reevaluate: bool = True

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.source_guidance", self.source_guidance, 0, 100)
        in_range("method.gradient_size", self.gradient_size, 0)
        in_range("method.gradient_scale", self.gradient_scale, 0)
        in_range("method.gradient_steps", self.gradient_steps, 1, 100)
        in_range("method.every", self.every, 1, 1000)
        one_of("method.negative", self.negative, ("empty", "caption"))
        one_of("method.update", self.update, ("paper", "per_branch"))
        one_of("method.gradient", self.gradient, ("plain", "normalised", "clipped"))

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target"}
        if self.negative == "empty" and (self.guidance, self.source_guidance) != (1.0, 1.0):
            used.add("negative")
        return frozenset(used)

    @property
    def own_negative(self) -> str | None:
        """The setting that asks for a negative condition of its own."""
        return "method.negative" if self.negative == "caption" else None

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        at = _Walk(self, backbone, trajectory, conditions, draws, edited_tokens(conditions)).at
        asked: Latents = {}  # where the network is asked about the edit, once it has moved
        theirs: Guesses = {}
        known: Guesses = {}  # of the edit's at `asked`, from the losses' pass
        scale = self.source_guidance

        source = Reference(
            self.loss,
            backbone,
            len(trajectory.path),
            look=lambda step, z: self._source_look(at(step), z),
            guess=lambda found: trajectory.guided_role(found, "source", "source_negative", scale),
            after=trajectory.source_after,
        )

        def descend(step: int, z: Branches) -> Branches:
            here, there = at(step), source.at(step, z["source"])
            theirs["source"] = there.guess
            edits = ("negative", "target") if "negative" in here.texts else ("target",)
            before: Latents = dict.fromkeys(edits, z["edit"])
            after, passed = self._descended(here, before, there.views)
            asked.update(after if self.reevaluate else before)
            known.clear()
            known.update(passed)
            return z | {"edit": after[edits[0]]}

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            if level != trajectory.path.levels[step]:
                return self._between(at(step), z, level, trajectory)
            unknown = {role: z for role, z in asked.items() if role not in known}
            found = known | source.beside(step, level, at(step).rows(unknown))
            ours = {
                role: found[role] if here is z["edit"] else found[role].seen_from(z["edit"], level)
                for role, here in asked.items()
            }
            edit = trajectory.guided_role(ours, "target", "negative", self.guidance)
            return theirs | {"edit": edit}

        start = trajectory.starts("source", "edit")
        return trajectory.sample(start, evaluate, before=descend)

    def _between(self, here: _Step, z: Branches, level: Level, trajectory: Trajectory) -> Guesses:
        """Where a solver asks within a step: both branches as they are, without a descent."""
        asked = {"source": z["source"], "target": z["edit"]}
        texts = here.texts
        if "negative" in texts:
            asked["negative"] = z["edit"]
        if "source_negative" in self._source_roles(here):
            asked["source_negative"] = z["source"]
        rows = {role: (latent, texts[role]) for role, latent in asked.items()}
        found = predict(here.backbone, level, rows)
        return trajectory.both_guided(found, self.guidance, self.source_guidance)

    def needs_negative(self, backbone: Backbone) -> bool:
        """Whether the edit's branch has a row with the negative condition beside it."""
        scales = self.guidance, self.source_guidance
        return any(needs_negative(backbone, scale) for scale in scales)

    def _source_roles(self, here: _Step) -> tuple[str, ...]:
        """Which rows the source's branch needs: published, it is guided too."""
        alone = self.source_guidance == 1.0 and self.update == "paper"
        if alone or "negative" not in here.texts:
            return ("source",)
        return ("source_negative", "source")

    def _source_look(self, here: _Step, source: Tensor) -> Look:
        """The source's rows, as the losses look at them."""
        return here.look(dict.fromkeys(self._source_roles(here), source))

    def _descended(
        self, here: _Step, latents: Latents, reference: Mapping[str, View]
    ) -> tuple[Latents, Guesses]:
        """The edit's latents after descending the losses, by role.

        And unless it is asked for again, what the network said at those before.
        """
        passed: Guesses = {}
        if not any(here.weights.values()):
            return latents, passed
        # Which of the source's roles each of the edit's is compared with.
        compared = {"target": "source"}
        if self.update == "per_branch" and "negative" in latents:
            compared = {"negative": "source_negative", "target": "source"}

        def loss_at(moving: Latents) -> Tensor:
            whole = not self.reevaluate and not passed
            found, views = self.loss.seen(here.backbone, here.look(moving), whole=whole)
            if whole:
                passed.update({role: guess.detach() for role, guess in found.items()})
            losses = [
                self.loss(views[role], reference[theirs], here.weights, here.moment)
                for role, theirs in compared.items()
            ]
            return torch.stack(losses).mean(0)

        moving = {role: latents[role] for role in compared}
        for _ in range(self.gradient_steps):
            slopes = gradients(loss_at, moving, here.backbone.dtype)
            moves = {role: self.gradient_scale * self._sized(slopes[role]) for role in moving}
            moving = {role: x - moves[role].to(x) for role, x in moving.items()}
        return {role: moving.get(role, moving["target"]) for role in latents}, passed

    def _sized(self, slope: Tensor) -> Tensor:
        if self.gradient == "plain":
            return slope
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        if self.gradient == "normalised":
            return slope / size * self.gradient_size
        return slope * (self.gradient_size / size).clamp(max=1.0)


@dataclass(frozen=True, eq=False)
class _Walk:
    """What all steps have in common."""

    method: ZeroCon
    backbone: Backbone
    trajectory: Trajectory
    conditions: Conditions
    draws: Draws
    edited: Tensor | None  # see `edited_tokens`

    def at(self, step: int) -> _Step:
        method, given, steps = self.method, self.conditions, len(self.trajectory.path)
        texts = {
            "source": told(self.backbone, given.source, method.source_guidance),
            "target": told(self.backbone, given.target, method.guidance),
        }
        if method.needs_negative(self.backbone):
            negative = given.negative if method.negative == "empty" else given.source
            texts["negative"] = self.trajectory.negative(step, negative)
            texts["source_negative"] = texts["negative"]
        weights = method.loss.weights(step, steps)
        if step % method.every:
            weights = dict.fromkeys(weights, 0.0)
        moment = Moment(step, steps, self.draws, self.edited)
        level = self.trajectory.path.levels[step]
        return _Step(self.backbone, level, texts, weights, moment, given.negative)


@dataclass(frozen=True, eq=False)
class _Step:
    """One step: the network at a level, the texts by role, and how much each loss counts."""

    backbone: Backbone
    level: Level
    texts: dict[str, Condition]
    weights: Weights
    moment: Moment
    empty: Condition  # of the empty prompt

    def rows(self, latents: Latents) -> Rows:
        return {role: (z, self.texts[role]) for role, z in latents.items()}

    def look(self, latents: Latents) -> Look:
        return Look(self.level, self.rows(latents), self.weights, self.empty)
