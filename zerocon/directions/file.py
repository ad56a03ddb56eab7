"""A direction computed before, from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition
from zerocon.directions.base import check_strength, steered
from zerocon.shapes.packaged import file_fingerprint

SHARED = "delta"  # the tensor for all cases; a case's own is `delta.<case id>`
POOLED = "pooled"  # the same of the pooled embedding, for models that use one


@dataclass(frozen=True)
class File:
    """c_edit = c + α Δc, with Δc from a safetensors file: `delta` [token, width] for every case,
    or `delta.<case id>`; a case's own one goes first. `zerocon direction --out` writes such files.
    """

    keeps_target_words: ClassVar[bool] = False

    path: Path
    strength: float = 1.0
    pooled: bool = False

    def __post_init__(self) -> None:
        check_strength(self.strength)
        read_deltas(self.path)

    def __call__(self, backbone: Backbone, cases: Sequence[Case]) -> Condition:
        source = backbone.embed([case.source_prompt for case in cases])
        deltas, made_for = read_deltas(self.path)
        if made_for not in (None, backbone.fingerprint):
            raise ConfigError(
                f"direction.path={self.path} was made with another backbone ({made_for}) than "
                f"this one ({backbone.fingerprint}): embeddings of two models don't add up"
            )
        rows = [self._delta(deltas, case, source) for case in cases]
        return steered(source, Condition.stack(rows), self.strength, pooled=self.pooled)

    @property
    def fingerprint(self) -> str:
        return file_fingerprint(self.path)

    def _delta(self, deltas: dict[str, Tensor], case: Case, source: Condition) -> Condition:
        """The case's own difference, or the one for all cases, for each part of a condition."""
        found = {
            part: next((deltas[n] for n in names if n in deltas), None)
            for part, names in (
                ("tokens", (f"{SHARED}.{case.id}", SHARED)),
                ("pooled", (f"{POOLED}.{case.id}", POOLED)),
            )
        }
        for part, like in source.parts.items():
            delta = found[part]
            if delta is None:
                name = SHARED if part == "tokens" else POOLED
                raise CaseError(
                    f"{self.path} has no tensor '{name}.{case.id}' and no {name!r} for all cases"
                )
            if delta.shape != like.shape[1:]:
                raise CaseError(
                    f"the direction in {self.path} is {list(delta.shape)}; this backbone's "
                    f"{part} are {list(like.shape[1:])}"
                )
        return Condition(**{part: found[part] for part in source.parts})


@cache
def read_deltas(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The file's directions, and the fingerprint of the backbone it was made for, if it says."""
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
