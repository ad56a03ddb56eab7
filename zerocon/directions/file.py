"""A precomputed direction from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition
from zerocon.core.memory import NO_MEMORY, Memory
from zerocon.directions.banks import last_change
from zerocon.directions.base import check_strength, steered

SHARED = "delta"  # tensor for all cases; for one case it is `delta.<case id>`
POOLED = "pooled"  # as `delta`, of the pooled embedding, for models that use one


@dataclass(frozen=True)
class File:
    """c_edit = c + α Δc, with Δc from a safetensors file: `delta` [token, width] for every case,
    or `delta.<case id>`, which takes precedence. `zerocon direction --out` writes such files.
    """

    keeps_target_words: ClassVar[bool] = False

    path: Path
    strength: float = 1.0
    pooled: bool = False

    def __post_init__(self) -> None:
        check_strength(self.strength)
        read_deltas(self.path)

    def __call__(
        self, backbone: Backbone, cases: Sequence[Case], memory: Memory = NO_MEMORY
    ) -> Condition:
        source = backbone.embed([case.source_prompt for case in cases])
        deltas, made_for = read_deltas(self.path)
        if made_for not in (None, backbone.fingerprint):
            raise ConfigError(
                f"direction.path={self.path} was made with another backbone ({made_for}) than "
                f"this one ({backbone.fingerprint}): embeddings of different models can't be added"
            )
        rows = [self._delta(deltas, case, source) for case in cases]
        return steered(source, Condition.stack(rows), self.strength, pooled=self.pooled)

    def _delta(self, deltas: dict[str, Tensor], case: Case, source: Condition) -> Condition:
        """The case's difference, or the one for all cases, for each part of a condition."""
        parts = {
            part: self._part(deltas, part, case.id, like.shape[1:])
            for part, like in source.parts.items()
        }
        return Condition(**parts)

    def _part(
        self, deltas: dict[str, Tensor], part: str, case_id: str, shape: torch.Size
    ) -> Tensor:
        name = SHARED if part == "tokens" else POOLED
        delta = deltas.get(f"{name}.{case_id}", deltas.get(name))
        if delta is None:
            raise CaseError(
                f"{self.path} has no tensor '{name}.{case_id}' and no {name!r} for all cases"
            )
        if delta.shape != shape:
            raise CaseError(
                f"the direction in {self.path} is {list(delta.shape)}; this backbone's "
                f"{part} are {list(shape)}"
            )
        return delta


def read_deltas(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The file's directions, and their backbone's fingerprint or None."""
    return _read_deltas(path, last_change(path))


@cache
def _read_deltas(path: Path, _changed: int) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safe_open(path, "pt") as stored:
            names = [n for n in stored.keys() if n.partition(".")[0] in (SHARED, POOLED)]  # noqa: SIM118
            deltas = {name: stored.get_tensor(name) for name in names}
            made_for = (stored.metadata() or {}).get("backbone")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"direction.path={path} can't be read as safetensors: {error}") from error
    if not deltas:
        raise ConfigError(
            f"direction.path={path} holds no tensor named {SHARED!r} or '{SHARED}.<case id>'"
        )
    return deltas, made_for
