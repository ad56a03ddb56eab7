"""Read pictures and masks that other people made; whatever is wrong with them is said.

A picture becomes RGB, 0..1, square (centre crop) and `side` pixels wide. What had to be
converted on the way is noted, so that a record can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from zerocon.cases import CaseError

MOST_PIXELS = 64_000_000  # more than a camera's picture; a small file can claim far more
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def read_image(path: str | Path, root: Path, side: int) -> tuple[Tensor, tuple[str, ...]]:
    """The picture at `path` inside `root`: ([3, side, side] in 0..1, notes)."""
    file = inside(path, root)
    picture, notes = _opened(file, path)
    pixels = np.array(_resized(_cropped(picture), side))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255, notes


def inside(path: str | Path, root: Path) -> Path:
    """The file's real place; CaseError when it is not below `root`."""
    given, base = Path(path), root.resolve()
    if given.is_absolute() or "\0" in str(path):
        raise CaseError(f"image path {str(path)!r}: it must be relative to the folder {root}")
    file = (base / given).resolve()
    if not file.is_relative_to(base):
        raise CaseError(f"image path {str(path)!r} leads out of the dataset's folder {root}")
    return file


def resize_mask(mask: NDArray[np.uint8], side: int) -> Tensor:
    """A mask cropped and resized as its picture is: area average, half covered counts."""
    cropped = _cropped(Image.fromarray(mask.astype(np.float32)))
    shares = np.array(cropped.resize((side, side), Image.Resampling.BOX))
    return torch.from_numpy((shares >= 0.5).astype(np.float32))[None]


def decode_rle(flat: object, height: int, width: int) -> NDArray[np.uint8]:
    """PIE-Bench's masks: [start, length, start, length, …] over the picture row by row."""
    numbers = _integers(flat)
    if len(numbers) % 2:
        raise CaseError(f"mask: {len(numbers)} numbers; starts and lengths must come in pairs")
    mask = np.zeros(height * width, dtype=np.uint8)
    for place in range(0, len(numbers), 2):
        start, length = numbers[place], numbers[place + 1]
        if start < 0 or length < 0:
            raise CaseError(f"mask: run {place // 2} is ({start}, {length}); none may be negative")
        if start + length > mask.size:
            raise CaseError(
                f"mask: run {place // 2} is ({start}, {length}); it ends beyond the "
                f"{height}x{width} = {mask.size} pixels"
            )
        mask[start : start + length] = 1
    return mask.reshape(height, width)


def with_border(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PIE-Bench's rule: the outermost row and column on all four sides belong to the edit.

    The annotation tool left noise there; the published evaluation sets them to 1.
    """
    bordered = np.ones_like(mask)
    bordered[1:-1, 1:-1] = mask[1:-1, 1:-1]
    return bordered


def _integers(flat: object) -> Sequence[int]:
    if not isinstance(flat, list):
        raise CaseError(f"mask: expected a list of whole numbers, got {type(flat).__name__}")
    for place, value in enumerate(flat):
        if not isinstance(value, int) or isinstance(value, bool):
            raise CaseError(f"mask: entry {place} is {value!r}; it must be a whole number")
    return flat


def _opened(file: Path, name: str | Path) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in RGB, and what was done for that."""
    if not file.is_file():
        raise CaseError(f"image {name}: there is no such file in the dataset's folder")
    if file.stat().st_size == 0:
        raise CaseError(f"image {name}: the file is empty")
    try:
        with Image.open(file) as image:
            _check_size(image, name)
            return _rgb(image)
    except Image.DecompressionBombError as error:
        raise CaseError(_too_big(name)) from error
    except Image.UnidentifiedImageError as error:
        raise CaseError(f"image {name}: this is not a picture in a format that is known") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise CaseError(f"image {name}: the file is damaged or cut short ({error})") from error


def _check_size(image: Image.Image, name: str | Path) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise CaseError(_too_big(name))


def _too_big(name: str | Path) -> str:
    return f"image {name}: it has more than {MOST_PIXELS // 10**6} million pixels; make it smaller"


def _rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    notes: list[str] = []
    if getattr(image, "is_animated", False):
        notes.append("animated: the first frame was used")
    turned = ImageOps.exif_transpose(image)
    if turned.size != image.size or image.getexif().get(0x0112, 1) != 1:
        notes.append("turned upright as its EXIF orientation says")
    if turned.mode in SIXTEEN_BIT:
        notes.append("16 bits a pixel were scaled to 8")
        turned = _eight_bit(turned)
    if turned.mode != "RGB":
        turned = _converted(turned, notes)
    return turned, tuple(notes)


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
    return Image.fromarray(np.floor(values / 257 + 0.5).astype(np.uint8))


def _converted(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr",
                          "LAB", "HSV"):  # fmt: skip
        raise CaseError(f"a picture of mode {image.mode} can't be used; save it as 8-bit RGB")
    if not image.has_transparency_data:
        if image.mode not in ("L", "P", "1"):
            notes.append(f"converted from {image.mode} to RGB")
        return image.convert("RGB")
    notes.append("transparent parts were laid over white")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _cropped(image: Image.Image) -> Image.Image:
    """The square in the middle."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _resized(image: Image.Image, side: int) -> Image.Image:
    if image.width == side:
        return image
    whole = image.width % side == 0
    kind = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    return image.resize((side, side), kind)
