"""Which tokens of two prompts belong together, and where a word stands."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import torch
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Words


def words_of(backbone: Backbone, case: Case) -> Words:
    source, target = backbone.tokens(case.source_prompt), backbone.tokens(case.target_prompt)
    before, after = case.blend_words or ("", "")
    return Words(
        source,
        target,
        places_of(backbone.tokens(before)[1:-1], source),
        places_of(backbone.tokens(after)[1:-1], target),
        split_into_words(backbone, case.source_prompt),
        split_into_words(backbone, case.target_prompt),
    )


def split_into_words(backbone: Backbone, prompt: str) -> tuple[tuple[int, ...], ...]:
    return tuple(backbone.tokens(word)[1:-1] for word in prompt.split())


def places_of(phrase: Sequence[int], tokens: Sequence[int]) -> tuple[int, ...]:
    """Every position that an occurrence of the phrase covers; none for no phrase."""
    width = len(phrase)
    starts = [
        i for i in range(len(tokens) - width + 1) if width and [*tokens[i : i + width]] == [*phrase]
    ]
    return tuple(sorted({start + k for start in starts for k in range(width)}))


def edited_tokens(conditions: Conditions) -> Tensor | None:
    """1 at the source prompt's tokens that the target prompt does not keep, [case, token]."""
    if not conditions.words:
        return None
    marks = torch.zeros(conditions.source.shape[:2], device=conditions.source.device)
    for row, words in enumerate(conditions.words):
        for position in changed_positions(words.source, words.target):
            marks[row, position] = 1.0
    return marks


def changed_positions(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """Where the source has what the target has not; all its words, if only words are added."""
    matcher = SequenceMatcher(None, source, target, autojunk=False)
    changed = [
        position
        for tag, first, last, _, _ in matcher.get_opcodes()
        if tag in ("replace", "delete")
        for position in range(first, last)
    ]
    return changed or list(range(1, len(source) - 1))
