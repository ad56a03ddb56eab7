"""The direction from the source to the target prompt (pix2pix-zero's PIE-Bench runs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Condition
from zerocon.core.memory import NO_MEMORY, Memory
from zerocon.directions.base import SentenceSets, check_strength, difference_of, steered


@dataclass(frozen=True)
class PromptPair:
    """c_edit = c + α (embed(target) - embed(source)), with c = embed(source).

    At strength 1 this is the target prompt's embedding; other strengths interpolate or
    extrapolate. `pooled` moves every token by the mean difference.
    """

    strength: float = 1.0
    pooled: bool = False

    def __post_init__(self) -> None:
        check_strength(self.strength)

    @property
    def keeps_target_words(self) -> bool:
        return self.strength == 1.0 and not self.pooled

    def __call__(
        self, backbone: Backbone, cases: Sequence[Case], memory: Memory = NO_MEMORY
    ) -> Condition:
        source = backbone.embed([case.source_prompt for case in cases])
        target = backbone.embed([case.target_prompt for case in cases])
        return steered(source, difference_of(target, source), self.strength, pooled=self.pooled)

    def sentence_sets(self, cases: Sequence[Case], memory: Memory) -> list[SentenceSets]:
        return [
            SentenceSets(c.source_prompt, (c.source_prompt,), (c.target_prompt,)) for c in cases
        ]
