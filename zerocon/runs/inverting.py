"""Each inversion once: trajectories are kept by case, and only what is missing is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Inversion, Trajectory
from zerocon.inversions.none import NoInversion
from zerocon.ledger.cache import Cache, Entry, key_of
from zerocon.ledger.code import code_of

KIND = "inversions_v2"


@dataclass(frozen=True)
class Inverter:
    """An inversion that looks into the cache first. Without a cache it only inverts."""

    inversion: Inversion
    said: Mapping[str, Any]  # the inversion's settings, as the config has them
    cache: Cache | None = None

    def __call__(
        self,
        backbone: Backbone,
        cases: Sequence[Case],
        clean: Tensor,
        conditions: Conditions,
        steps: int,
        draws: Draws,
    ) -> Trajectory:
        if self.cache is None or isinstance(self.inversion, NoInversion):
            return self.inversion(backbone, clean, conditions, steps, draws)
        keys = [self._key(backbone, case, steps, draws.seed) for case in cases]
        entries = [self.cache.read(key) for key in keys]
        missing = [row for row, entry in enumerate(entries) if entry is None]
        if missing:
            rows = self._blind(conditions, draws, missing)
            made = self.inversion(backbone, clean[missing], rows[0], steps, rows[1])
            for place, row in enumerate(missing):
                tensors, rest = made.case(place)
                entry = entries[row] = Entry(tensors, {"rest": rest})
                self.cache.write(keys[row], entry)
            if len(missing) == len(cases):
                return made
        return _joined([entry for entry in entries if entry is not None], clean)

    def _key(self, backbone: Backbone, case: Case, steps: int, seed: int) -> str:
        draws = [seed, case.id] if self._uses_draws else None
        return key_of(
            {
                "backbone": [backbone.fingerprint, str(backbone.dtype), backbone.device.type],
                "code": code_of(type(self.inversion).__module__, type(backbone).__module__),
                "image": _digest(case.image),
                "source_prompt": case.source_prompt,
                "inversion": dict(self.said),
                "steps": steps,
                "draws": draws,
            }
        )

    @property
    def _uses_draws(self) -> bool:
        return bool(getattr(self.inversion, "uses_draws", True))

    def _blind(
        self, conditions: Conditions, draws: Draws, rows: Sequence[int]
    ) -> tuple[Conditions, Draws]:
        """Those cases' conditions without what is not in the key: no inversion may see it."""
        chosen = list(rows)
        source = conditions.source[chosen]
        seen = Conditions(source=source, target=source, negative=conditions.negative[chosen])
        ids = [draws.case_ids[row] for row in rows] if self._uses_draws else []
        return seen, replace(draws, case_ids=ids)


def _digest(image: Tensor) -> str:
    pixels = image.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(str(list(image.shape)).encode() + pixels.tobytes()).hexdigest()


def _joined(entries: Sequence[Entry], like: Tensor) -> Trajectory:
    """One trajectory of all cases' entries, where `like` is."""
    cases = [{n: part.to(like.device) for n, part in e.tensors.items()} for e in entries]
    return Trajectory.joined(cases, entries[0].said["rest"])
