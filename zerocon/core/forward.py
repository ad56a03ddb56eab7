"""Forward passes over rows with names: source, target, negative."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zerocon.core.conditions import Condition
from zerocon.core.levels import At, Guess, Level, Levels, guided
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

    def predict(self, z: Tensor, level: At, condition: Condition) -> Guess: ...


def predict(network: Network, level: Level | Mapping[str, Level], rows: Rows) -> dict[str, Guess]:
    """Every role's guess, in one forward pass whose rows the taps see by name.

    `level`: one for all rows, or each role's own.
    """
    latents, conditions = zip(*rows.values(), strict=True)
    count = len(latents[0])
    if "source" in rows:
        network.evaluations.reference += count
    z = latents[0]
    at = level if isinstance(level, Level) else Levels([level[role] for role in rows], z)
    with network.taps.labelled(tuple(rows), count):
        found = network.predict(torch.cat(latents), at, Condition.cat(conditions)).to(z.dtype)
    return {role: found[i * count : (i + 1) * count] for i, role in enumerate(rows)}


def run_for_taps(network: Network, level: Level, rows: Rows) -> None:
    """A forward pass for what its taps see; it ends where a recording with `stop` has seen all."""
    with suppress(PassEnded):
        predict(network, level, rows)


def predict_guided(
    network: Network, level: Level, z: Tensor, negative: Condition, text: Condition, scale: float
) -> Guess:
    """One guided guess; the row with the negative condition is left out where it is not needed."""
    if not needs_negative(network, scale):
        return network.predict(z, level, told(network, text, scale))
    found = predict(network, level, {"negative": (z, negative), "target": (z, text)})
    return guided(found["negative"], found["target"], scale)


@dataclass(frozen=True, eq=False)
class Asked:
    """A guided guess that is wanted: of which latents, under which text, at which scale."""

    z: Tensor
    text: Condition
    guidance: float


def predict_each(
    network: Network, level: Level, negative: Condition, asked: Mapping[str, Asked]
) -> dict[str, Guess]:
    """Every role's guided guess, all in one forward pass.

    A role has a row with the negative condition beside its own, unless its scale is 1 or the
    network is told the scale itself.
    """
    rows: dict[str, tuple[Tensor, Condition]] = {}
    for role, one in asked.items():
        if needs_negative(network, one.guidance):
            rows[_negative_of(role)] = one.z, negative
        rows[role] = one.z, told(network, one.text, one.guidance)
    found = predict(network, level, rows)
    return {role: _guided(found, role, one.guidance) for role, one in asked.items()}


def guidance_is_told(network: Network) -> bool:
    """Whether the network takes guidance as a number in its condition, as FLUX.1-dev does."""
    return bool(getattr(network, "guidance_is_told", False))


def needs_negative(network: Network, scale: float) -> bool:
    """Whether guidance at this scale takes a row with the negative condition."""
    return scale != 1.0 and not guidance_is_told(network)


def told(network: Network, text: Condition, scale: float) -> Condition:
    """The text with the guidance scale in it, for a network that is told it."""
    return text.with_guidance(scale) if guidance_is_told(network) else text


def _negative_of(role: str) -> str:
    return "negative" if role == "target" else f"{role}_negative"


def _guided(found: Mapping[str, Guess], role: str, scale: float) -> Guess:
    negative = found.get(_negative_of(role))
    return found[role] if negative is None else guided(negative, found[role], scale)


def branch_rows(
    network: Network,
    z: Branches,
    texts: tuple[Condition, Condition, Condition],
    guidance: float,
    source_guidance: float,
) -> Rows:
    """Source and edit side by side, each told its scale by a network that takes it.

    `texts`: negative, source, target. The rows with the negative condition are left out where
    neither scale needs them.
    """
    negative, source, target = texts
    rows = both_branches(
        z, negative, told(network, source, source_guidance), told(network, target, guidance)
    )
    if needs_negative(network, guidance) or needs_negative(network, source_guidance):
        return rows
    return {role: rows[role] for role in ("source", "target")}


def both_branches(z: Branches, negative: Condition, source: Condition, target: Condition) -> Rows:
    """Source and edit side by side, each guided by its own row with the negative condition."""
    return {
        "source_negative": (z["source"], negative),
        "negative": (z["edit"], negative),
        "source": (z["source"], source),
        "target": (z["edit"], target),
    }
