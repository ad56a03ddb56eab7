"""ConsistEdit (Yin et al. 2025): the source's structure everywhere, its content off the object.

Attention of image tokens tells structure in queries and keys and content in values. The object is
where the image attends to its words in the source prompt.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.base import Backbone
from zerocon.core.checks import in_range
from zerocon.core.conditions import Conditions, Draws, Words
from zerocon.core.forward import branch_rows, predict, run_for_taps, told
from zerocon.core.levels import Level
from zerocon.core.sampling import Branches, Guesses
from zerocon.core.taps import Site, Taps, read_patterns, replace
from zerocon.core.word_maps import marks, word_map
from zerocon.inversions.base import Trajectory
from zerocon.methods.base import Used

# Whose queries, keys and values each of the edit's rows takes.
TAKEN_FROM = {"negative": "source_negative", "target": "source"}


@dataclass(frozen=True)
class ConsistEdit:
    """At `sites` the image tokens' queries and keys are the source's for the first share `alpha`
    of the steps, later only off the object; their values are the source's off the object at every
    step. Text tokens are left alone.

    The object is where the attention to a case's blend word in the source prompt, over all levels
    of the trajectory and all `mask_sites`, is above the share `threshold` of its range. Without a
    blend word, or with `masked` false, the object is the whole picture.
    """

    needs_inversion: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = False

    steps: int = 28
    guidance: float = 1.0
    alpha: float = 0.1
    sites: str = "joint.*.self,!*.dual.*"
    masked: bool = True
    mask_sites: str = "cross"
    threshold: float = 0.1

    def __post_init__(self) -> None:
        in_range("method.steps", self.steps, 1, 1000)
        in_range("method.guidance", self.guidance, 0, 100)
        in_range("method.alpha", self.alpha, 0, 1)
        in_range("method.threshold", self.threshold, 0, 1)
        read_patterns(self.sites)
        read_patterns(self.mask_sites)

    @property
    def uses(self) -> frozenset[Used]:
        used: set[Used] = {"trajectory", "source_row", "target"}
        if self.guidance != 1.0:
            used.add("negative")
        return frozenset(used)

    @torch.no_grad()
    def __call__(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions, draws: Draws
    ) -> Tensor:
        fully = int(self.alpha * len(trajectory.path))
        kept = self._background(backbone, trajectory, conditions)

        def evaluate(step: int, z: Branches, level: Level) -> Guesses:
            negative = trajectory.negative(step, conditions.negative)
            texts = negative, conditions.source, conditions.target
            rows = branch_rows(backbone, z, texts, self.guidance, self.guidance)
            structure = torch.ones_like(kept) if step < fully else kept
            with self._fused(backbone.taps, structure, kept):
                found = predict(backbone, level, rows)
            return trajectory.both_guided(found, self.guidance, self.guidance)

        return trajectory.sample(trajectory.starts("source", "edit"), evaluate)

    @contextmanager
    def _fused(self, taps: Taps, structure: Tensor, content: Tensor) -> Generator[None]:
        """Both are 1 where the source's is taken, [case, 1, y, x]."""
        with ExitStack() as open_taps:
            for what in ("queries", "keys"):
                open_taps.enter_context(replace(taps, self.sites, what, Fused(structure)))
            open_taps.enter_context(replace(taps, self.sites, "values", Fused(content)))
            yield

    def _background(
        self, backbone: Backbone, trajectory: Trajectory, conditions: Conditions
    ) -> Tensor:
        """1 off the object, [case, 1, y, x]."""
        cases = len(conditions.source)
        seen = WordAttention(conditions.words if self.masked else ())
        if not seen.marks.any():
            return torch.zeros(cases, 1, 1, 1, device=backbone.device)
        text = told(backbone, conditions.source, 1.0)
        with replace(backbone.taps, self.mask_sites, "probs", seen):
            for step, (here, _) in enumerate(trajectory.path.steps):
                run_for_taps(backbone, here, {"source": (trajectory.before(step), text)})
        assert seen.total is not None
        low, high = (f((2, 3), keepdim=True) for f in (seen.total.amin, seen.total.amax))
        inside = (seen.total - low) > self.threshold * (high - low)
        named = seen.marks.any(1).to(inside.device)[:, None, None, None]
        return (named & ~inside).float()


@dataclass(frozen=True, eq=False)
class Fused:
    """A change that mixes the source's image tokens into the edit's."""

    share: Tensor  # of the source's, [case, 1, y, x]

    def __call__(self, site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        share = F.interpolate(self.share, size=site.grid).flatten(2)[..., None]
        return {
            role: torch.where(share > 0, rows[whose], rows[role])
            for role, whose in TAKEN_FROM.items()
            if role in rows
        }


class WordAttention:
    """Sums the attention to the source's blend words over sites and passes; changes nothing."""

    def __init__(self, words: Sequence[Words]) -> None:
        self.marks = marks([_places(one) for one in words])
        self.total: Tensor | None = None  # [case, 1, y, x]

    def __call__(self, site: Site, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = word_map([rows["source"]], self.marks, site.grid)
        self.total = found if self.total is None else self.total + found
        return {}


def _places(words: Words) -> list[int]:
    """Where the blend word stands, in each encoder's tokens."""
    behind = _places(words.behind) if words.behind else []
    return [*words.source_blend, *(words.length + place for place in behind)]
