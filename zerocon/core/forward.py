"""Forward passes over rows with names: source, target, negative."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zerocon.core.conditions import Condition
from zerocon.core.levels import Guess, Level, guided
from zerocon.core.sampling import Branches
from zerocon.core.taps import PassEnded, Taps

Rows = Mapping[str, tuple[Tensor, Condition]]  # role -> (latents, text condition), all of one size


@dataclass
class Evaluations:
    """How many rows have passed the network, and how many came back for a gradient."""

    forward: int = 0
    backward: int = 0
    reference: int = 0  # of the forward rows: those of a source beside its edit

    def count(self, z: Tensor, condition: Condition) -> None:
        """One forward pass over these rows."""
        self.forward += len(z)
        asked = (z, *condition.parts.values())
        if torch.is_grad_enabled() and any(part.requires_grad for part in asked):
            self.backward += len(z)


class Network(Protocol):
    """What a forward pass needs of a backbone."""

    taps: Taps
    evaluations: Evaluations

    def predict(self, z: Tensor, level: Level, condition: Condition) -> Guess: ...


def predict(network: Network, level: Level, rows: Rows) -> dict[str, Guess]:
    """Every role's guess, in one forward pass whose rows the taps see by name."""
    latents, conditions = zip(*rows.values(), strict=True)
    count = len(latents[0])
    if "source" in rows:
        network.evaluations.reference += count
    with network.taps.labelled(tuple(rows), count):
        found = network.predict(torch.cat(latents), level, Condition.cat(conditions))
    return {role: found[i * count : (i + 1) * count] for i, role in enumerate(rows)}


def run_for_taps(network: Network, level: Level, rows: Rows) -> None:
    """A forward pass for what its taps see; it ends where a recording with `stop` has seen all."""
    with suppress(PassEnded):
        predict(network, level, rows)


def predict_guided(
    network: Network, level: Level, z: Tensor, negative: Condition, text: Condition, scale: float
) -> Guess:
    """One guided guess; the row with the negative condition is left out at scale 1."""
    if scale == 1.0:
        return network.predict(z, level, text)
    found = predict(network, level, {"negative": (z, negative), "target": (z, text)})
    return guided(found["negative"], found["target"], scale)


def both_branches(z: Branches, negative: Condition, source: Condition, target: Condition) -> Rows:
    """Source and edit side by side, each guided by its own row with the negative condition."""
    return {
        "source_negative": (z["source"], negative),
        "negative": (z["edit"], negative),
        "source": (z["source"], source),
        "target": (z["edit"], target),
    }
