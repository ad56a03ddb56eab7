"""The sampling loop: a solver steps along a path, and a method defines the evaluations.

It samples named branches with one latent per case each: the edit and, if a method needs it, the
source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from zerocon.core.levels import Guess, Level

Branches = dict[str, Tensor]  # name -> latents, [case, channel, y, x]
Guesses = dict[str, Guess]
Evaluate = Callable[[Branches, Level], Guesses]  # called by solvers, at any latent and level
StepEvaluate = Callable[[int, Branches, Level], Guesses]  # with the step's number
StepHook = Callable[[int, Branches], Branches]


class Solver(Protocol):
    """Takes all evaluated branches from the level of step `i` to the next one."""

    def step(self, i: int, z: Branches, evaluate: Evaluate) -> Branches: ...


def unchanged(_step: int, z: Branches) -> Branches:
    return z


def sample(
    solver: Solver,
    steps: int,
    start: Branches,
    evaluate: StepEvaluate,
    *,
    before: StepHook = unchanged,
    after: StepHook = unchanged,
) -> Branches:
    """Sample all branches to the end. `before` and `after` may change them around each step."""
    z = start
    for i in range(steps):
        z = before(i, z)
        z = solver.step(i, z, lambda z, level, i=i: evaluate(i, z, level))
        z = after(i, z)
    return z
