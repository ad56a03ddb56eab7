"""Eight small edits, and tools to run them and to record activations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import Rows, predict
from zerocon.core.levels import Guess, Level
from zerocon.core.prompts import words_of
from zerocon.core.taps import What, record
from zerocon.inversions.base import Trajectory
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.methods.base import Method
from zerocon.runs.worker import masks_of

SHAPES = ("circle", "square", "house", "star", "heart", "ring", "cross", "moon")
COLOURS = ("blue", "green", "yellow", "purple", "white", "black", "orange", "pink")


def case(row: int) -> Case:
    shape, colour = SHAPES[row], COLOURS[row]
    return Case(
        id=f"case {row}",
        image=torch.zeros(3, 32, 32),
        source_prompt=f"a big red {shape} on a gray background",
        target_prompt=f"a big {colour} {shape} on a gray background",
        blend_words=(shape, shape) if row != 1 else None,
        mask=(torch.arange(32) % (row + 2) > 0).float().expand(1, 32, 32),
    )


def conditions_of(backbone: Backbone, cases: Sequence[Case]) -> Conditions:
    return Conditions(
        backbone.embed([c.source_prompt for c in cases]),
        backbone.embed([c.target_prompt for c in cases]),
        backbone.embed([""] * len(cases)),
        [words_of(backbone, c) for c in cases],
        masks_of(cases) if all(c.mask is not None for c in cases) else None,
    )


@dataclass
class Given:
    """A method's arguments."""

    backbone: Backbone
    trajectory: Trajectory
    conditions: Conditions
    draws: Draws

    def run(self, method: Method) -> Tensor:
        with torch.no_grad():
            return method(self.backbone, self.trajectory, self.conditions, self.draws)


def given(
    backbone: Backbone, method: Method, rows: Sequence[int], invert: Any = None, seed: int = 0
) -> Given:
    cases = [case(row) for row in rows]
    clean = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    clean = clean[list(rows)].to(backbone.dtype)
    conditions, draws = conditions_of(backbone, cases), Draws(seed, [c.id for c in cases])
    invert = invert or (DDIMInversion() if method.needs_inversion else NoInversion())
    trajectory = invert(backbone, clean, conditions, method.steps, draws)
    return Given(backbone, trajectory, conditions, draws)


@dataclass
class Pass:
    """The inputs of a forward pass, and its activations before and after the taps."""

    rows: Rows
    before: dict[str, dict[str, Tensor]]  # site -> role -> activation
    after: dict[str, dict[str, Tensor]]


def watched(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, sites: str, what: What
) -> list[Pass]:
    """Record all later forward passes of the method in `module`."""
    passes: list[Pass] = []

    def spy(backbone: Backbone, level: Level, rows: Rows) -> dict[str, Guess]:
        taps = backbone.taps
        with ExitStack() as open_taps:
            inner = open_taps.enter_context(record(taps, sites, what))
            outer = open_taps.enter_context(record(taps, sites, what))
            taps.stack.insert(0, taps.stack.pop())  # sees everything before the method changes it
            found = predict(backbone, level, rows)
        before, after = ({s.name: seen[s.name] for s in seen.sites} for seen in (outer, inner))
        passes.append(Pass(rows, before, after))
        return found

    monkeypatch.setattr(module, "predict", spy)
    return passes


def same(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance))
