"""Prompts as tokens: positions of words, and alignment of two prompts' tokens.

Alignment is Prompt-to-Prompt's. Prompts are tuples of token ids with start and end; results cover
all tokens of the text encoder. Attention maps are
[case, head, position, token].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from zerocon.core.cases import Case, CaseError
from zerocon.core.conditions import Conditions, Words
from zerocon.core.devices import placed

TOKENS = 77  # that CLIP reads

Prompt = Sequence[int]
Window = Sequence[float]  # shares of the steps, first and last


class Tokenizes(Protocol):
    """A backbone's tokenizer."""

    prompt_tokens: int  # how many there are with padding: the first of a condition's tokens
    start_tokens: int  # how many of them stand before the first word

    def tokens(self, prompt: str) -> tuple[int, ...]:
        """The token numbers with start and end, without padding."""
        ...


def words_of(text: Tokenizes, case: Case) -> Words:
    """The case's prompts as the backbone's tokenizer reads them, and another one behind it."""
    behind: Tokenizes | None = getattr(text, "behind", None)
    source, target = text.tokens(case.source_prompt), text.tokens(case.target_prompt)
    before, after = case.blend_words or ("", "")
    return Words(
        source,
        target,
        places_of(bare(text, before), source),
        places_of(bare(text, after), target),
        split_into_words(text, case.source_prompt),
        split_into_words(text, case.target_prompt),
        text.prompt_tokens,
        text.start_tokens,
        words_of(behind, case) if behind else None,
    )


def split_into_words(text: Tokenizes, prompt: str) -> tuple[tuple[int, ...], ...]:
    return tuple(bare(text, word) for word in prompt.split())


def bare(text: Tokenizes, phrase: str) -> tuple[int, ...]:
    """The phrase's tokens, without start and end."""
    return text.tokens(phrase)[text.start_tokens : -1]


def places_of(phrase: Sequence[int], tokens: Sequence[int]) -> tuple[int, ...]:
    """The positions of all occurrences of the phrase; none for an empty phrase."""
    width = len(phrase)
    starts = [
        i for i in range(len(tokens) - width + 1) if width and [*tokens[i : i + width]] == [*phrase]
    ]
    return tuple(sorted({start + k for start in starts for k in range(width)}))


def edited_tokens(conditions: Conditions) -> Tensor | None:
    """1 at the source prompt's tokens that the target prompt does not keep, [case, token]."""
    if not conditions.words:
        return None
    source = conditions.source.tokens
    marks = torch.zeros(source.shape[:2], device=source.device)
    for row, words in enumerate(conditions.words):
        for position in changed_positions(words.source, words.target, words.start):
            marks[row, position] = 1.0
    return marks


def changed_positions(source: Sequence[int], target: Sequence[int], start: int = 1) -> list[int]:
    """Positions of source tokens that the target lacks; all words if words are only added."""
    matcher = SequenceMatcher(None, source, target, autojunk=False)
    changed = [
        position
        for tag, first, last, _, _ in matcher.get_opcodes()
        if tag in ("replace", "delete")
        for position in range(first, last)
    ]
    return changed or list(range(start, len(source) - 1))


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the target's maps are computed, per token."""

    mapper: Tensor  # [source token, target token], weight of the source token's map
    own: Tensor  # [target token], 1 where the target keeps its own map

    @classmethod
    def stacked(cls, alignments: Sequence[Alignment], device: torch.device) -> Alignment:
        """Stack the alignments of a batch along a new first axis."""
        mapper = torch.stack([a.mapper for a in alignments])
        own = torch.stack([a.own for a in alignments])
        return cls(placed(mapper, device), placed(own, device))

    def widened(self, length: int) -> Alignment:
        """Append target tokens that keep their own maps."""
        more = length - len(self.own)
        mapper = F.pad(self.mapper, (0, more, 0, more))
        return Alignment(mapper, F.pad(self.own, (0, more), value=1.0))

    def beside(self, behind: Alignment) -> Alignment:
        """Of these tokens and those that stand behind them."""
        mapper = torch.block_diag(self.mapper, behind.mapper)
        return Alignment(mapper, torch.cat([self.own, behind.own]))

    def tokens(self, source: Tensor, target: Tensor) -> Tensor:
        """What the target's tokens become, of both rows' own, [case, token, width]."""
        mapper, own = self.mapper.to(source), self.own.to(source)
        return mapper.transpose(1, 2) @ source + target * own[:, :, None]

    def applied(self, source: Tensor, target: Tensor) -> Tensor:
        """The target's edited maps from both rows' maps, without normalising again."""
        mapper, own = self.mapper.to(source), self.own.to(source)
        return source @ mapper[:, None] + target * own[:, None, None, :]


def same_places(length: int = TOKENS) -> Alignment:
    """Every token takes the map at its own position (reweighting one prompt)."""
    return Alignment(torch.eye(length), torch.zeros(length))


def replaced(
    source: Sequence[Prompt], target: Sequence[Prompt], length: int = TOKENS, start: int = 1
) -> Alignment:
    """Align word by word; words with different numbers of tokens share their maps evenly.

    `source` and `target` are the prompts' words, each as its tokens, without start and end;
    `start` tokens stand before the first word.
    """
    if len(source) != len(target):
        raise CaseError(
            f"the source prompt has {len(source)} words and the target prompt {len(target)}; "
            "method.edit=replace needs equal numbers, method.edit=refine does not"
        )
    pairs = list(zip(source, target, strict=True))
    changed = [place for place, (before, after) in enumerate(pairs) if before != after]
    reach = max(length, start + sum(map(len, source)), start + sum(map(len, target)))
    mapper = torch.zeros(reach, reach, dtype=torch.float64)
    mapper[:start, :start].fill_diagonal_(1.0)
    i = j = start
    for before, after in pairs[: max(changed, default=-1) + 1]:
        block = mapper[i : i + len(before), j : j + len(after)]
        if len(before) == len(after):
            block.fill_diagonal_(1.0)
        else:
            block.fill_(1 / len(after))
        i, j = i + len(before), j + len(after)
    # As published: after the last changed word, tokens are paired by position in the target.
    rest = torch.arange(j, j + max(0, length - max(i, j)))
    mapper[rest, rest] = 1.0
    return Alignment(mapper[:length, :length], torch.zeros(length))


def refined(source: Prompt, target: Prompt, length: int = TOKENS) -> Alignment:
    """Tokens in both prompts take the source's maps, new ones keep the target's."""
    mapper, own = torch.zeros(length, length), torch.zeros(length)
    for place, origin in enumerate(aligned(source, target)[:length]):
        if origin is None:
            own[place] = 1.0
        else:
            mapper[origin, place] = 1.0
    rest = torch.arange(len(target), length)  # padding
    mapper[rest, rest] = 1.0
    return Alignment(mapper, own)


def refined_throughout(words: Words) -> Alignment:
    """`refined`, of each encoder's tokens by themselves."""
    first = refined(words.source, words.target, words.length)
    return first if words.behind is None else first.beside(refined_throughout(words.behind))


def aligned(source: Prompt, target: Prompt) -> list[int | None]:
    """For each target token, the position of its source token; None for a new token.

    Needleman-Wunsch with match 1, mismatch -1, gap 0. Ties are resolved as published: a new target
    token before a dropped source token before a pair.
    """
    score = [[0] * (len(target) + 1) for _ in range(len(source) + 1)]
    for i, before in enumerate(source, 1):
        for j, after in enumerate(target, 1):
            pair = score[i - 1][j - 1] + (1 if before == after else -1)
            score[i][j] = max(score[i][j - 1], score[i - 1][j], pair)
    origins: list[int | None] = [None] * len(target)
    i, j = len(source), len(target)
    while i > 0 and j > 0:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            origins[j] = i
    return origins


def word_schedule(
    steps: int, window: Window, by_place: Mapping[int, Window], length: int = TOKENS
) -> Tensor:
    """1 at the steps at which a token has the source's map, [step, token].

    As published, the shares are of `steps + 1`.
    """
    alphas = torch.zeros(steps + 1, length)
    for place in range(length):
        first, last = by_place.get(place, window)
        alphas[int(first * (steps + 1)) : int(last * (steps + 1)), place] = 1.0
    return alphas[:steps]
