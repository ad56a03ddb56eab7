"""A small grammar that turns scenes into captions, in several phrasings, and back.

Captions omit defaults (a plain solid upright thing, the style `photo`) and state everything else.
`parse(caption(scene, rng))` equals `scene.described()`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

from zerocon.shapes.scene import BACKGROUNDS, COLORS, SHAPES, STYLES, THING_ATTRIBUTES, Scene, Thing

Description = tuple[object, ...]

SIZE_WORDS = {"big": ("big", "large"), "small": ("small", "little")}
MATERIAL_WORDS = {"plain": "", "striped": "striped", "dotted": "dotted"}
FILL_WORDS = {"solid": "", "hollow": "hollow"}
POSE_WORDS = {"upright": "", "tilted": "tilted"}
PLACE_WORDS = {
    "gray": ("on a gray background", "in front of a gray wall"),
    "white": ("on a white background", "in front of a white wall"),
    "black": ("on a black background", "in front of a black wall"),
    "meadow": ("on a green meadow", "in a meadow"),
    "beach": ("on a sandy beach", "at the beach"),
    "brick": ("on a brick background", "in front of a brick wall"),
}
STYLE_PREFIXES = {
    "photo": ("", "a picture of"),
    "pastel": ("a pastel picture of", "a pastel drawing of"),
    "night": ("a night picture of", "a dark night photo of"),
    "sepia": ("a sepia picture of", "an old sepia photo of"),
}
# The first named thing is on the left, except with "to the right of".
RELATIONS = ("to the left of", "next to", "and", "to the right of")

_VALUES = {
    **{word: ("size", size) for size, words in SIZE_WORDS.items() for word in words},
    **{word: ("color", word) for word in COLORS},
    **{word: ("shape", word) for word in SHAPES},
    "striped": ("material", "striped"),
    "dotted": ("material", "dotted"),
    "hollow": ("fill", "hollow"),
    "tilted": ("pose", "tilted"),
}
_DEFAULTS = {"material": "plain", "fill": "solid", "pose": "upright"}


class CaptionError(ValueError):
    """A sentence that is not in the grammar."""


def thing_phrase(thing: Thing, size_word: int = 0) -> str:
    """Describe a thing, such as 'a big tilted red striped house'."""
    words = (
        SIZE_WORDS[thing.size][size_word],
        POSE_WORDS[thing.pose],
        FILL_WORDS[thing.fill],
        thing.color,
        MATERIAL_WORDS[thing.material],
        thing.shape,
    )
    return "a " + " ".join(w for w in words if w)


def caption(scene: Scene, rng: Random | None = None) -> str:
    """One caption of the scene: the first phrasing, or one drawn with `rng`."""
    wording = Wording.first() if rng is None else Wording.draw(rng)
    return wording.caption(scene)


class Wording:
    """A choice of phrasings. Captions of two scenes in one wording differ only where scenes do."""

    def __init__(self, sizes: tuple[int, int], relation: str, place: int, prefix: int) -> None:
        self.sizes, self.relation, self.place, self.prefix = sizes, relation, place, prefix

    @classmethod
    def first(cls) -> Wording:
        return cls((0, 0), RELATIONS[0], 0, 0)

    @classmethod
    def draw(cls, rng: Random) -> Wording:
        sizes = (rng.randrange(2), rng.randrange(2))
        return cls(sizes, rng.choice(RELATIONS), rng.randrange(2), rng.randrange(2))

    def caption(self, scene: Scene) -> str:
        phrases = [thing_phrase(t, s) for t, s in zip(scene.things, self.sizes, strict=False)]
        if self.relation == "to the right of":
            phrases.reverse()
        things = f" {self.relation} ".join(phrases)
        prefix = STYLE_PREFIXES[scene.style][self.prefix]
        place = PLACE_WORDS[scene.background][self.place]
        return f"{prefix} {things} {place}".strip()


def parse(text: str) -> Description:
    """Parse a caption to the form of `Scene.described`; CaptionError if that fails."""
    rest = text.strip().lower().rstrip(".")
    style, rest = _strip_prefix(rest)
    background, rest = _strip_place(rest, text)
    relation = next((r for r in RELATIONS if f" {r} a " in rest), None)
    parts = rest.split(f" {relation} ") if relation else [rest]
    things = [_parse_thing(part, text) for part in parts]
    if relation == "to the right of":
        things.reverse()
    return (tuple(things), background, style)


def vocabulary() -> list[str]:
    """All words of the grammar, sorted."""
    phrases: Iterator[str] = itertools.chain(
        _VALUES, RELATIONS, ("a",), *PLACE_WORDS.values(), *STYLE_PREFIXES.values()
    )
    return sorted({word for phrase in phrases for word in phrase.split()})


def _strip_prefix(rest: str) -> tuple[str, str]:
    for style in STYLES:
        for prefix in STYLE_PREFIXES[style]:
            if prefix and rest.startswith(prefix + " "):
                return style, rest[len(prefix) + 1 :]
    return "photo", rest


def _strip_place(rest: str, text: str) -> tuple[str, str]:
    for background in BACKGROUNDS:
        for place in PLACE_WORDS[background]:
            if rest.endswith(" " + place):
                return background, rest[: -len(place) - 1]
    raise CaptionError(f"the caption {text!r} does not end with a background of the grammar")


def _parse_thing(phrase: str, text: str) -> tuple[str, ...]:
    words = phrase.split()
    found = dict(_DEFAULTS)
    if not words or words[0] != "a":
        raise CaptionError(f"expected 'a …' at {phrase!r} in the caption {text!r}")
    for word in words[1:]:
        if word not in _VALUES:
            raise CaptionError(f"unknown word {word!r} in the caption {text!r}")
        name, value = _VALUES[word]
        found[name] = value
    missing = [name for name in THING_ATTRIBUTES if name not in found]
    if missing:
        raise CaptionError(f"{phrase!r} in the caption {text!r} does not say its {missing[0]}")
    return tuple(found[name] for name in THING_ATTRIBUTES)
