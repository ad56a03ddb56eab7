"""Invert each batch once: its trajectories are cached together.

An entry belongs to its whole batch, since a model's last bits depend on what is computed
together. A trajectory from the cache is therefore bit for bit the one that would be computed,
and after a kill or a damaged entry the whole batch is inverted again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone, is_compiled
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.memory import NO_MEMORY, Entry, Memory
from zerocon.core.source_code import code_of
from zerocon.inversions.base import Inversion, Trajectory
from zerocon.inversions.none import NoInversion

KIND = "inversions_v3"


@dataclass(frozen=True)
class Inverter:
    """An inversion that looks in the cache first."""

    inversion: Inversion
    settings: Mapping[str, Any]  # of the inversion, as the config has them
    memory: Memory = NO_MEMORY

    def __call__(
        self,
        backbone: Backbone,
        cases: Sequence[Case],
        clean: Tensor,
        conditions: Conditions,
        steps: int,
        draws: Draws,
    ) -> Trajectory:
        if self.memory is NO_MEMORY or isinstance(self.inversion, NoInversion):
            return self.inversion(backbone, clean, conditions, steps, draws)

        def compute() -> Entry:
            seen = self._seen(conditions, draws)
            return Entry(*self.inversion(backbone, clean, seen[0], steps, seen[1]).stored())

        content = self._content(backbone, cases, steps, draws.seed)
        entry = self.memory.kept(KIND, content, compute, count=len(cases))
        tensors = {name: part.to(clean.device) for name, part in entry.tensors.items()}
        return Trajectory.restored(tensors, entry.values)

    def _content(self, backbone: Backbone, cases: Sequence[Case], steps: int, seed: int) -> Any:
        """Everything that the batch's trajectories depend on, as plain JSON."""
        return {
            "backbone": [
                backbone.fingerprint,
                str(backbone.dtype),
                backbone.device.type,
                *(["compiled"] if is_compiled(backbone) else []),
            ],
            "code": code_of(type(self.inversion).__module__, type(backbone).__module__),
            "inversion": dict(self.settings),
            "steps": steps,
            "cases": [[_digest(case.image), case.source_prompt] for case in cases],
            "draws": [seed, *(case.id for case in cases)] if self._uses_draws else None,
        }

    @property
    def _uses_draws(self) -> bool:
        return bool(getattr(self.inversion, "uses_draws", True))

    def _seen(self, conditions: Conditions, draws: Draws) -> tuple[Conditions, Draws]:
        """The inputs that the inversion may use: only those that the entry's key contains."""
        source = conditions.source
        seen = Conditions(source=source, target=source, negative=conditions.negative)
        return seen, draws if self._uses_draws else replace(draws, case_ids=[])


def _digest(image: Tensor) -> str:
    pixels = image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(str(list(image.shape)).encode() + pixels.tobytes()).hexdigest()
