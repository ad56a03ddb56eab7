"""The edited concept: the words in which the target prompt differs from the source prompt.

Pure functions of words. Words are separated by spaces; punctuation after a word is a separate
word. Comparisons ignore case.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ",.;:!?"
# Words that end a noun phrase: prepositions, conjunctions, punctuation.
EDGES = frozenset(
    (
        *PUNCTUATION,
        *("about", "above", "across", "against", "and", "as", "at", "behind", "below", "beside"),
        *("between", "but", "by", "during", "for", "from", "in", "inside", "into", "is", "near"),
        *("next", "of", "off", "on", "onto", "or", "outside", "over", "that", "through", "to"),
        *("toward", "towards", "under", "upon", "which", "while", "who", "with", "without"),
    )
)
START, END = "<start>", "<end>"  # a prompt's two ends; no word has these keys
EVERYWHERE = ARTICLES | EDGES
LONGER = 3  # additional words that another caption may have at the edit's place
REACH = 4  # words of context on each side used to find a place
FAMILIAR = 1.5  # context of two consecutive words, enough to place an insertion by one side

Words = Sequence[str]


@dataclass(frozen=True)
class Change:
    """`old` words (none: an insertion) become `new` ones (none: a deletion), at a place given by
    the words around it in the source prompt."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    """One side of an edit: the differing words, and the phrase they are part of."""

    words: str
    phrase: str


def split(text: str) -> list[str]:
    return re.sub(rf"([{PUNCTUATION}]+)(?=\s|$)", r" \1", text).split()


def join(words: Words) -> str:
    return re.sub(rf" ([{PUNCTUATION}]+)(?= |$)", r"\1", " ".join(words))


def changes(source: str, target: str) -> list[Change]:
    """The changes from the source to the target prompt, from left to right."""
    old, new = split(source), split(target)
    matcher = difflib.SequenceMatcher(None, _keys(old), _keys(new), autojunk=False)
    return [
        Change(tuple(old[i:j]), tuple(new[k:m]), tuple(old[:i]), tuple(old[j:]))
        for tag, i, j, k, m in matcher.get_opcodes()
        if tag != "equal"
    ]


def substituted(sentence: str, edits: Sequence[Change]) -> str | None:
    """The sentence after the same edits; None if one of them has no clear place in it."""
    words = split(sentence)
    places = [_place(words, edit) for edit in edits]
    found = sorted((p, e.new) for p, e in zip(places, edits, strict=True) if p is not None)
    overlap = any(a[0][1] > b[0][0] for a, b in pairwise(found))
    if len(found) < len(edits) or overlap:
        return None
    for (first, last), new in reversed(found):
        words[first:last] = new
    return join(words)


def concepts(source: str, target: str) -> tuple[Concept, Concept]:
    """The edited concept before and after, from the first differing word to the last.

    "a photo of a red cat", "a photo of a dog": "red cat" of "a red cat", "dog" of "a dog".
    """
    old, new = split(source), split(target)
    first, tail = _common(old, new)
    if first == len(old) == len(new):
        return Concept(source, source), Concept(target, target)
    left, right = _phrase(old[:first], old[len(old) - tail :], min(len(old), len(new)) - tail)
    return _concept(old, first, tail, left, right), _concept(new, first, tail, left, right)


def _keys(words: Words) -> list[str]:
    return [word.lower() for word in words]


def _place(words: Words, edit: Change) -> tuple[int, int] | None:
    """The words of the sentence that the edit replaces, where the context matches best."""
    keys = _keys(words)
    longest = len(edit.old) + LONGER
    spans = [
        (i, j) for i in range(len(keys) + 1) for j in range(i, min(len(keys), i + longest) + 1)
    ]
    scored = [(score, span) for span in spans if (score := _score(keys, edit, span)) is not None]
    return min(scored, key=lambda s: (-s[0], s[1]))[1] if scored else None


def _score(keys: Words, edit: Change, span: tuple[int, int]) -> float | None:
    """How well the span matches the edit's place; None if it can't be the place."""
    here, old = list(keys[span[0] : span[1]]), _keys(edit.old)
    sides = _sides(keys, edit, span)
    left, right = (_likeness(*side) for side in sides)
    enclosed = left >= 1 and right >= 1
    surroundings = sum(_likeness(*side, common=0.25) for side in sides)
    if here == old:  # an insertion's empty span matches everywhere, so its context must be known
        known = bool(old) or enclosed or max(left, right) >= FAMILIAR
        return 2 * REACH + surroundings if known else None
    if enclosed and _may_say(here, old):
        return surroundings
    return None


def _may_say(here: Words, old: Words) -> bool:
    """Whether these words may be a paraphrase of the edit's old words."""
    if len(old) <= 2:
        return 1 <= len(here) <= len(old) + 1 and bool(old)
    return difflib.SequenceMatcher(None, here, old, autojunk=False).ratio() >= 0.5


def _sides(keys: Words, edit: Change, span: tuple[int, int]) -> list[tuple[Words, Words]]:
    """The context on both sides, nearest word first, here and in the source prompt."""
    left = ([START, *keys[: span[0]]][::-1], [START, *_keys(edit.before)][::-1])
    right = ([*keys[span[1] :], END], [*_keys(edit.after), END])
    return [left, right]


def _likeness(here: Words, there: Words, common: float = 1.0) -> float:
    """How many of the next words agree, weighted by nearness. `common`: the weight of frequent
    words such as articles."""
    pairs = list(zip(here, there, strict=False))[:REACH]
    return sum(
        0.5**distance * (common if a in EVERYWHERE else 1)
        for distance, (a, b) in enumerate(pairs)
        if a == b
    )


def _common(old: Words, new: Words) -> tuple[int, int]:
    """The number of common words at the start and at the end."""
    shorter = min(len(old), len(new))
    a, b = _keys(old), _keys(new)
    first = next((i for i in range(shorter) if a[i] != b[i]), shorter)
    most = shorter - first
    tail = next((i for i in range(most) if a[-1 - i] != b[-1 - i]), most)
    return first, tail


def _phrase(before: Words, after: Words, shorter: int) -> tuple[int, int]:
    """The number of common words on each side that belong to the same phrase.

    `shorter`: the end of the differing words in the prompt that has fewer of them.
    """
    left = _until_article(before)
    right = _until_edge(after)
    if left == right == 0 and shorter == len(before):  # one side is empty: include what follows
        right = _until_edge(after[1:]) + 1 if after else 0
    return left, right


def _until_article(before: Words) -> int:
    count = 0
    for word in reversed(before):
        if word.lower() in EDGES:
            break
        count += 1
        if word.lower() in ARTICLES:
            break
    return count


def _until_edge(after: Words) -> int:
    stops = ARTICLES | EDGES
    return next((i for i, word in enumerate(after) if word.lower() in stops), len(after))


def _concept(words: list[str], first: int, tail: int, left: int, right: int) -> Concept:
    last = len(words) - tail
    phrase = words[first - left : last + right]
    return Concept(join(words[first:last]), join(phrase))
