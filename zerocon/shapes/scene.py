"""Scenes of the shapes world as data.

A scene determines its picture. Attributes with words in the grammar (`captions.py`) are strings
from the tuples below. Positions and the background's layout are numbers that captions do not
mention; an edit has to preserve them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

SHAPES = ("circle", "square", "triangle", "cross", "heart", "house")
COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
MATERIALS = ("plain", "striped", "dotted")
SIZES = ("small", "big")
FILLS = ("solid", "hollow")
POSES = ("upright", "tilted")
BACKGROUNDS = ("gray", "white", "black", "meadow", "beach", "brick")
STYLES = ("photo", "pastel", "night", "sepia")

THING_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": COLORS,
    "material": MATERIALS,
    "size": SIZES,
    "fill": FILLS,
    "pose": POSES,
}
SCENE_ATTRIBUTES: dict[str, tuple[str, ...]] = {"background": BACKGROUNDS, "style": STYLES}

RADIUS = {"small": 0.14, "big": 0.22}

T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """One object. `x` and `y` are its centre, 0..1 from the left and from the top."""

    shape: str
    color: str
    material: str
    size: str
    fill: str
    pose: str
    x: float
    y: float

    def __post_init__(self) -> None:
        for name, allowed in THING_ATTRIBUTES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"a thing's {name} is {value!r}; it must be one of {allowed}")
        if self.fill == "hollow" and self.material != "plain":
            raise ValueError(f"a hollow thing has no surface for the material {self.material!r}")
        if self.shape == "circle" and self.pose != "upright":
            raise ValueError("a circle has no pose: a tilted circle looks like an upright one")


@dataclass(frozen=True)
class Scene:
    """One or two things, left to right, before a background, in a style.

    `layout` (0..1) is a property of the background without a word: the height of the horizon, or
    where the bricks begin.
    """

    things: tuple[Thing, ...]
    background: str
    style: str
    layout: float

    def __post_init__(self) -> None:
        for name, allowed in SCENE_ATTRIBUTES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"a scene's {name} is {value!r}; it must be one of {allowed}")
        if not 1 <= len(self.things) <= 2:
            raise ValueError(f"a scene holds one or two things, not {len(self.things)}")

    def described(self) -> tuple[object, ...]:
        """What a caption can state: everything except positions and layout."""
        things = tuple(tuple(getattr(t, a) for a in THING_ATTRIBUTES) for t in self.things)
        return (things, self.background, self.style)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Scene:
        things = tuple(Thing(**thing) for thing in data["things"])
        return Scene(things, data["background"], data["style"], data["layout"])


def random_thing(rng: Random, x: float, y: float) -> Thing:
    shape = rng.choice(SHAPES)
    fill = _pick(rng, FILLS, (3, 1))
    return Thing(
        shape=shape,
        color=rng.choice(COLORS),
        material="plain" if fill == "hollow" else _pick(rng, MATERIALS, (2, 1, 1)),
        size=rng.choice(SIZES),
        fill=fill,
        pose="upright" if shape == "circle" else _pick(rng, POSES, (2, 1)),
        x=x,
        y=y,
    )


def random_place(rng: Random, side: str) -> tuple[float, float]:
    """A centre on the `left`, on the `right` or `any`where; things on both sides never touch."""
    low, high = {"left": (0.24, 0.28), "right": (0.72, 0.76), "any": (0.24, 0.76)}[side]
    # Rounded, so that the number in a JSON file is exact.
    return round(rng.uniform(low, high), 3), round(rng.uniform(0.27, 0.73), 3)


def random_scene(rng: Random, things: int | None = None) -> Scene:
    count = rng.choice((1, 2)) if things is None else things
    sides = ("any",) if count == 1 else ("left", "right")
    return Scene(
        things=tuple(random_thing(rng, *random_place(rng, side)) for side in sides),
        background=rng.choice(BACKGROUNDS),
        style=_pick(rng, STYLES, (7, 1, 1, 1)),
        layout=round(rng.random(), 3),
    )


def _pick(rng: Random, values: Sequence[T], weights: Sequence[int]) -> T:
    return rng.choices(values, weights)[0]
