"""Show what a direction is computed from, and how it moves the condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Condition
from zerocon.core.memory import NO_MEMORY, Memory
from zerocon.directions.base import (
    Direction,
    MadeOfSentences,
    SentenceSets,
    difference_of,
    mean_embedding,
    with_sources,
)
from zerocon.directions.file import POOLED, SHARED


@dataclass(frozen=True, eq=False)
class Inspected:
    sets: SentenceSets
    target_prompt: str
    words: list[str]  # the tokens of the base sentence
    target_words: list[str]
    before: Condition  # c, tokens [token, width]
    after: Condition  # c_edit
    similarities: dict[
        str, tuple[float, float]
    ]  # name of a set of sentences -> similarity before, after

    @property
    def delta(self) -> Condition:
        """The change of c, including strength and pooling."""
        return difference_of(self.after, self.before)

    @property
    def similarity_by_token(self) -> Tensor:
        """The cosine between c and c_edit, [token]."""
        return F.cosine_similarity(self.before.tokens, self.after.tokens, dim=-1)


def inspected(
    backbone: Backbone, direction: Direction, case: Case, memory: Memory = NO_MEMORY
) -> Inspected:
    """Compute the case's direction and how it moves the source condition."""
    (known,) = with_sources(direction, [case], memory)
    sets = _sentence_sets(direction, case, known, memory)
    before = backbone.embed([sets.base])[0].map(lambda part: part.float().cpu())
    after = direction(backbone, [case], memory)[0].map(lambda part: part.float().cpu())
    banks = {"source sentences": sets.sources, "target sentences": sets.targets}
    return Inspected(
        sets,
        case.target_prompt,
        token_texts(backbone, sets.base),
        token_texts(backbone, case.target_prompt),
        before,
        after,
        {name: _moved(backbone, bank, before, after) for name, bank in banks.items()},
    )


def pooled(condition: Condition) -> Tensor:
    """One vector for a condition, [width]: the mean over its tokens without the start token,
    which is the same in every sentence and has a larger norm than the others."""
    return condition.tokens[1:].mean(0)


def token_texts(backbone: Any, prompt: str) -> list[str]:
    """The tokens' texts if the backbone has a tokenizer, else their ids."""
    ids = list(backbone.tokens(prompt))
    tokenizer = getattr(backbone, "tokenizer", None)
    texts = tokenizer.convert_ids_to_tokens(ids) if tokenizer else [str(i) for i in ids]
    return [str(text).removesuffix("</w>") for text in texts]


def direction_file(found: Inspected, fingerprint: str) -> bytes:
    """The content of a file for `direction=file`."""
    about = {"backbone": fingerprint, "source": found.sets.base, "target": found.target_prompt}
    names = {"tokens": SHARED, "pooled": POOLED}
    tensors = {names[part]: delta.contiguous() for part, delta in found.delta.parts.items()}
    return save(tensors, about)


def _sentence_sets(direction: Direction, case: Case, known: Case, memory: Memory) -> SentenceSets:
    if isinstance(direction, MadeOfSentences):
        return direction.sentence_sets([case], memory)[0]
    return SentenceSets(known.source_prompt, (known.source_prompt,), (case.target_prompt,))


def _moved(
    backbone: Backbone, sentences: Sequence[str], before: Condition, after: Condition
) -> tuple[float, float]:
    """The cosine between the condition and the sentences' mean, before and after."""
    mean = pooled(mean_embedding(backbone, sentences).map(lambda part: part.cpu()))
    near = [F.cosine_similarity(pooled(c), mean, dim=0).item() for c in (before, after)]
    return near[0], near[1]
