"""No direction: the target prompt's embedding is the target condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Condition
from zerocon.core.memory import NO_MEMORY, Memory


@dataclass(frozen=True)
class WordSwap:
    keeps_target_words: ClassVar[bool] = True

    def __call__(
        self, backbone: Backbone, cases: Sequence[Case], memory: Memory = NO_MEMORY
    ) -> Condition:
        return backbone.embed([case.target_prompt for case in cases])
