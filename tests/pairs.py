"""One case on a small model, inverted once by each inversion for all methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.config.compatibility import every_choice, inversions_for, model_of
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.prompts import words_of
from zerocon.directions.word_swap import WordSwap
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Method

STEPS = 2


@dataclass
class OneCase:
    """A picture with its prompts, and its trajectories so far by inversion."""

    backbone: Backbone
    case: Case
    inverted: dict[str, Trajectory] = field(default_factory=dict[str, Trajectory])

    def __post_init__(self) -> None:
        prompts = self.case.source_prompt, self.case.target_prompt, ""
        embedded = (self.backbone.embed([prompt]) for prompt in prompts)
        words, size = [words_of(self.backbone, self.case)], self.case.image.shape[1:]
        half = (torch.arange(size[1]) < size[1] // 2).float().expand(1, 1, *size)
        self.conditions = Conditions(*embedded, words, half)
        self.clean = self.backbone.encode(self.case.image[None])
        self.draws = Draws(0, [self.case.id])

    def trajectory(self, inversion: Any) -> Trajectory:
        if hasattr(inversion, "iterations"):
            inversion = dataclasses.replace(inversion, iterations=1)  # they are slow
        key = repr(inversion)
        if key not in self.inverted:
            self.inverted[key] = inversion(
                self.backbone, self.clean, self.conditions, STEPS, self.draws
            )
        return self.inverted[key]

    def edits(
        self, method: Method, inversions: Mapping[str, Any], *, every: bool
    ) -> Iterator[tuple[str, Tensor]]:
        """The edit under each inversion, checked; a method leaves the trajectory as it was.

        Unless `every`, of inversions whose trajectories differ in numbers alone only the first:
        a method does the same with them.
        """
        kinds = set[tuple[object, ...]]()
        for name, inversion in inversions.items():
            trajectory = self.trajectory(inversion)
            if kind_of(trajectory) in kinds and not every:
                continue
            kinds.add(kind_of(trajectory))
            before = trajectory.latents.clone()
            edited = method(self.backbone, trajectory, self.conditions, self.draws)
            assert edited.shape == self.clean.shape, name
            assert edited.isfinite().all(), name
            assert torch.equal(trajectory.latents, before), name
            yield name, edited


def kind_of(trajectory: Trajectory) -> tuple[object, ...]:
    """All that a method may find in a trajectory but the numbers."""
    values = [getattr(trajectory, field.name) for field in dataclasses.fields(trajectory)]
    return tuple(v if isinstance(v, (bool, str, float)) else _is_there(v) for v in values)


def _is_there(value: object) -> bool:
    return bool(value) if isinstance(value, tuple) else value is not None


def valid_inversions(config: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """Those that the method goes with on the config's backbone, with their default settings."""
    choices = every_choice(config, "inversion")
    against = inversions_for(choices, method, WordSwap(), model_of(config))
    return {name: choice for name, choice in choices.items() if not against[name]}
