"""Choose and encode as many pictures, as large, as a page of limited size can hold."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

Open = Callable[[], Image.Image | None]
Shots = Mapping[Hashable, Mapping[Hashable, Open]]  # case -> key of a picture -> opener
Thing = TypeVar("Thing")

_IN_AN_ADDRESS = 4 / 3  # size of base64 text relative to its bytes
_SAFELY = 0.92  # margin: the total size is estimated from a sample
_SAMPLE = 48


@dataclass(frozen=True)
class Level:
    """A picture's maximum side and WebP quality; None is lossless."""

    side: int
    quality: int | None

    def words(self) -> str:
        size = f"at most {self.side} pixels wide and high"
        return f"{size}, exact" if self.quality is None else f"{size}, WebP quality {self.quality}"

    def encoded(self, picture: Image.Image) -> bytes:
        small = picture.convert("RGB")
        small.thumbnail((self.side, self.side))
        buffer = io.BytesIO()
        if self.quality is None:
            small.save(buffer, format="WEBP", lossless=True)
        else:
            small.save(buffer, format="WEBP", quality=self.quality)
        return buffer.getvalue()


LEVELS = (
    Level(128, None),  # only for pictures of at most this size
    Level(256, 85),
    Level(192, 80),
    Level(128, 78),
    Level(96, 72),
    Level(64, 60),
)


@dataclass(frozen=True)
class Album:
    """Encoded pictures by their keys; `cases` is the number of cases with pictures."""

    pictures: Mapping[Hashable, bytes]
    level: Level
    cases: int
    pixels: bool  # whether pictures are so small that pixels should stay sharp when enlarged


def album(shots: Shots, room: float) -> Album:
    """Encode each case's pictures at the best level that takes at most `room` bytes.

    If even the lowest level takes more, only evenly spaced cases have pictures.
    """
    free = room / _IN_AN_ADDRESS
    sample = _sample(shots)
    pixels = max((max(picture.size) for picture in sample), default=0) <= LEVELS[0].side
    count = sum(map(len, shots.values()))
    for level in LEVELS if pixels else LEVELS[1:]:
        if count * _size(sample, level) > _SAFELY * free:
            continue
        made = _encoded(shots, level)
        if sum(map(len, made.values())) <= free:
            return Album(made, level, len(shots), pixels)
    level = LEVELS[-1]
    of_case = _size(sample, level) * count / max(len(shots), 1)
    chosen = _spread(list(shots), int(_SAFELY * free / max(of_case, 1)))
    made = _encoded({case: shots[case] for case in chosen}, level)
    return Album(made, level, len(chosen), pixels)


def _sample(shots: Shots) -> list[Image.Image]:
    flat = [shot for of_case in shots.values() for shot in of_case.values()]
    opened = [shot() for shot in _spread(flat, _SAMPLE)]
    return [picture for picture in opened if picture is not None]


def _size(sample: Sequence[Image.Image], level: Level) -> float:
    """Mean bytes of a picture."""
    return sum(len(level.encoded(picture)) for picture in sample) / max(len(sample), 1)


def _spread(items: Sequence[Thing], most: int) -> list[Thing]:
    """At most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def _encoded(shots: Shots, level: Level) -> dict[Hashable, bytes]:
    pictures = ((key, shot()) for of_case in shots.values() for key, shot in of_case.items())
    return {key: level.encoded(picture) for key, picture in pictures if picture is not None}
