"""Sentences of the shapes world's grammar about what an edit changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from random import Random
from typing import Any, cast

from zerocon.core.cases import CaseError
from zerocon.shapes.captions import (
    MATERIAL_WORDS,
    PLACE_WORDS,
    SIZE_WORDS,
    CaptionError,
    Wording,
    parse,
)
from zerocon.shapes.scene import (
    COLORS,
    SCENE_ATTRIBUTES,
    SHAPES,
    THING_ATTRIBUTES,
    Scene,
    Thing,
    random_scene,
)

Pair = tuple[str, str]
# Phrases that can stand in each other's place, by what they say.
_KINDS: tuple[tuple[str, ...], ...] = (
    COLORS,
    SHAPES,
    tuple(word for words in SIZE_WORDS.values() for word in words),
    tuple(word for word in MATERIAL_WORDS.values() if word),
    tuple(phrase for phrases in PLACE_WORDS.values() for phrase in phrases),
)


def in_other_words(source: str, target: str, count: int) -> list[Pair]:
    """The prompts in other words of the grammar, both in the same wording."""
    return shapes_sentences(source, target, count, elsewhere=False)


def in_other_scenes(source: str, target: str, count: int) -> list[Pair]:
    """The same of other scenes, which share with the prompts only what changes."""
    return shapes_sentences(source, target, count, elsewhere=True)


def in_place(source: str, target: str, count: int) -> list[Pair]:
    """The prompts, and the prompts with one word that both share exchanged for another one.

    Every other word keeps its place, so that the mean difference, position by position, compares
    like with like. A place ("on a sandy beach") counts as one word; another one of as many words
    stands for it. Words outside the grammar stay.
    """
    others = list(dict.fromkeys(_exchanged(source, target)))
    Random(f"{source}\n{target}").shuffle(others)
    return [(source, target), *others][:count]


def _exchanged(source: str, target: str) -> Iterator[Pair]:
    old, new = source.split(), target.split()
    strict = _is_possible(source) and _is_possible(target)
    for i, j, length in _shared_spans(old, new):
        for phrase in _others(old[i : i + length]):
            pair = (_with(old, i, phrase), _with(new, j, phrase))
            if not strict or all(map(_is_possible, pair)):
                yield pair


def _shared_spans(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """All runs of words that both prompts share: where in each, and how many words."""
    for i, j, size in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        for first in range(size):
            for length in range(1, size - first + 1):
                yield i + first, j + first, length


def _others(words: Sequence[str]) -> Iterator[str]:
    """What can stand in the place of these words, in as many words."""
    said = " ".join(words).lower()
    for kind in _KINDS:
        if said in kind:
            yield from (p for p in kind if p != said and len(p.split()) == len(words))


def _with(words: Sequence[str], first: int, phrase: str) -> str:
    inside = phrase.split()
    return " ".join((*words[:first], *inside, *words[first + len(inside) :]))


def _is_possible(prompt: str) -> bool:
    """Whether it describes a scene that can be: no tilted circle, nothing hollow and striped."""
    try:
        _scene(prompt)
    except CaptionError:
        return False
    return True


def shapes_sentences(source: str, target: str, count: int, *, elsewhere: bool) -> list[Pair]:
    """The random draws depend on the two prompts alone."""
    scenes = _scenes(source, target)
    pairs: list[Pair] = []
    for number in range(count):
        rng = Random(f"{source}\n{target}\n{number}")
        wording = Wording.draw(rng)
        before, after = _moved(rng, *scenes) if elsewhere else scenes
        pairs.append((wording.caption(before), wording.caption(after)))
    return pairs


def _scenes(source: str, target: str) -> tuple[Scene, Scene]:
    try:
        return _scene(source), _scene(target)
    except CaptionError as error:
        raise CaseError(
            f"the shapes world's sentences need prompts of its grammar: {error}. For other "
            "prompts take direction.bank=photo"
        ) from error


def _scene(prompt: str) -> Scene:
    """A scene that fits the prompt; where its things stand, no caption tells."""
    things, background, style = cast("tuple[Any, str, str]", parse(prompt))
    stand = ((0.5, 0.5),) if len(things) == 1 else ((0.25, 0.5), (0.75, 0.5))
    try:
        drawn = tuple(
            Thing(**dict(zip(THING_ATTRIBUTES, thing, strict=True)), x=x, y=y)
            for thing, (x, y) in zip(things, stand, strict=True)
        )
        return Scene(drawn, background, style, 0.5)
    except ValueError as error:
        raise CaptionError(f"{prompt!r} describes no scene: {error}") from error


def _moved(rng: Random, before: Scene, after: Scene) -> tuple[Scene, Scene]:
    """Both scenes with all that they share drawn anew."""
    count = max(len(before.things), len(after.things))
    while True:
        try:
            return _refilled(before, after, random_scene(rng, count))
        except ValueError:  # such a scene can't be: a tilted circle, a hollow striped thing
            continue


def _refilled(before: Scene, after: Scene, drawn: Scene) -> tuple[Scene, Scene]:
    old, new = _refilled_things(before.things, after.things, drawn.things)
    shared: dict[str, Any] = {
        name: getattr(drawn, name)
        for name in SCENE_ATTRIBUTES
        if getattr(before, name) == getattr(after, name)
    }
    return replace(before, things=old, **shared), replace(after, things=new, **shared)


Things = tuple[Thing, ...]


def _refilled_things(before: Things, after: Things, drawn: Things) -> tuple[Things, Things]:
    if len(before) == len(after):
        pairs = [_redrawn(*three) for three in zip(before, after, drawn, strict=True)]
        return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    # One thing came or went, and the other is in both: that one is drawn anew.
    if len(before) < len(after):
        new, old = _refilled_things(after, before, drawn)
        return old, new
    stays = next((i for i, thing in enumerate(before) if _same(thing, after[0])), None)
    if stays is None:
        return before, after
    both = tuple(drawn[i] if i == stays else thing for i, thing in enumerate(before))
    return both, (drawn[stays],)


def _same(one: Thing, other: Thing) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in THING_ATTRIBUTES)


def _redrawn(before: Thing, after: Thing, drawn: Thing) -> tuple[Thing, Thing]:
    """What the two things have in common, as the drawn thing has it; ValueError if it can't be."""
    common = {
        name: getattr(drawn, name)
        for name in THING_ATTRIBUTES
        if getattr(before, name) == getattr(after, name)
    }
    return replace(before, **common), replace(after, **common)
