"""Prepare a case's pictures for display."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

from PIL import Image, ImageChops, ImageFilter

from zerocon.core.records import Record

OUTLINE = (255, 0, 150)
_LARGEST = 256  # larger pictures are scaled down: a gallery holds thousands
_LOSSLESS = 128  # pictures up to this size keep every pixel

_MOST_COMPARED = 250_000  # pairs of words of two prompts
_TO_BLACK_AND_WHITE = [0] * 128 + [255] * 128

Pieces = list[tuple[str, bool]]
Picture = Image.Image | bytes  # bytes: an encoded picture file


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """One case's record and pictures."""

    record: Record
    source: Picture | None = None
    edited: Picture | None = None
    ground_truth: Picture | None = None
    mask: Picture | None = None  # white = region to edit
    later: Callable[[], GalleryItem] | None = None  # reads the pictures when they are needed


def shown(item: GalleryItem) -> dict[str, Image.Image]:
    """Caption -> picture, in the order of display."""
    item = item.later() if item.later else item
    source, mask = _opened(item.source), _opened(item.mask)
    pictures = {
        "source": source,
        "edited": _opened(item.edited),
        "ground truth": _opened(item.ground_truth),
        "mask": overlay(source, mask) if mask and source else mask,
    }
    return {name: picture for name, picture in pictures.items() if picture is not None}


def _opened(picture: Picture | None) -> Image.Image | None:
    """Return None also for a broken file, which may be why the case failed."""
    try:
        if isinstance(picture, bytes):
            picture = Image.open(io.BytesIO(picture))
        return picture.convert("RGB") if picture else None
    except OSError:
        return None


def reduced(picture: Image.Image) -> Picture:
    """Scale down and encode a large picture, so that a whole run's pictures fit in memory."""
    if max(picture.size) <= _LARGEST:
        return picture
    small = picture.convert("RGB")
    small.thumbnail((_LARGEST, _LARGEST))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


def overlay(source: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the edited region outlined and everything else faded to gray."""
    region = mask.convert("L").resize(source.size).point(_TO_BLACK_AND_WHITE)
    gray = Image.new("RGB", source.size, "gray")
    faded = Image.blend(source.convert("L").convert("RGB"), gray, 0.6)
    picture = Image.composite(source, faded, region)
    thickness = 2 * max(1, max(source.size) // 128) + 1
    inner = region.filter(ImageFilter.MinFilter(thickness))
    picture.paste(OUTLINE, mask=ImageChops.subtract(region, inner))
    return picture


def data_uri(picture: Image.Image) -> str:
    """The picture as a data URI: exact when small, reduced when large."""
    buffer = io.BytesIO()
    if max(picture.size) <= _LOSSLESS:
        picture.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        picture = picture.copy()
        picture.thumbnail((_LARGEST, _LARGEST))
        picture.save(buffer, format="JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def is_small(picture: Image.Image) -> bool:
    """Whether the picture is so small that enlarging should keep its pixels sharp."""
    return max(picture.size) <= _LOSSLESS


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """Scale to at most `side` pixels; enlarge only by whole factors, without interpolation."""
    times = side // max(picture.size)
    if times >= 1:
        size = (picture.width * times, picture.height * times)
        return picture.resize(size, Image.Resampling.NEAREST)
    picture = picture.copy()
    picture.thumbnail((side, side))
    return picture


def changed_words(source: str, target: str) -> tuple[Pieces, Pieces]:
    """Split both prompts into pieces, each with whether the other prompt lacks it."""
    a, b = source.split(), target.split()
    if len(a) * len(b) > _MOST_COMPARED:
        return _ends_alike(a, b)
    steps = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return (
        _pieces([(a[i:j], kind != "equal") for kind, i, j, _, _ in steps]),
        _pieces([(b[k:m], kind != "equal") for kind, _, _, k, m in steps]),
    )


def _ends_alike(a: Sequence[str], b: Sequence[str]) -> tuple[Pieces, Pieces]:
    """For very long prompts: mark everything between the common first and last words."""
    start = _alike(a, b)
    end = _alike(a[start:][::-1], b[start:][::-1])
    return _middle(a, start, len(a) - end), _middle(b, start, len(b) - end)


def _alike(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the equal words at the start of both."""
    same = (x == y for x, y in zip(a, b, strict=False))
    return sum(1 for _ in takewhile(bool, same))


def _middle(words: Sequence[str], start: int, end: int) -> Pieces:
    return _pieces([(words[:start], False), (words[start:end], True), (words[end:], False)])


def _pieces(runs: Sequence[tuple[Sequence[str], bool]]) -> Pieces:
    """Join words to pieces; the spaces between pieces belong to neither."""
    pieces: Pieces = []
    for words, changed in runs:
        if words:
            pieces += [(" ", False)] * bool(pieces) + [(" ".join(words), changed)]
    return pieces
