"""The sampling loop, written once: a solver walks a path, a method says what the network is asked.

What is sampled are branches with names, each one latent per case: the edit, and the source
beside it where a method needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from zerocon.core.levels import Guess, Level

Branches = dict[str, Tensor]  # name -> latents, [case, channel, y, x]
Guesses = dict[str, Guess]
Evaluate = Callable[[Branches, Level], Guesses]  # what a solver calls, at any latent and level
StepEvaluate = Callable[[int, Branches, Level], Guesses]  # the same, told the step
StepHook = Callable[[int, Branches], Branches]


class Solver(Protocol):
    """Leads every branch that is evaluated from the level of step `i` to the next one."""

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
    """All branches after the last step. `before` and `after` may move them around each step."""
    z = start
    for i in range(steps):
        z = before(i, z)
        z = solver.step(i, z, lambda z, level, i=i: evaluate(i, z, level))
        z = after(i, z)
    return z
