"""Read untrusted pictures and masks; errors name the picture and the problem.

A picture becomes RGB, 0..1, and of the wanted size: its centre with that aspect ratio, resized.
Conversions are returned as notes, which become part of the case's record.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from zerocon.core.cases import CaseError
from zerocon.core.checks import shown
from zerocon.core.files import kind_of, open_regular
from zerocon.core.size import Size

T = TypeVar("T")

MOST_PIXELS = 64_000_000  # more than cameras have; a small file can declare far more
MOST_BYTES = 2**30  # of a picture's file; twice the size of that many 16-bit pixels
ORIENTATION = 0x0112  # the EXIF tag; 1: upright, 2 to 8: rotated or mirrored
BITS, SAMPLE_FORMAT = 258, 339  # TIFF tags
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
CONVERTED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB",
             "HSV")  # fmt: skip
# Raster formats only: others run an interpreter or read arbitrary files.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def read_image(path: str | Path, root: Path, pixels: Size) -> tuple[Tensor, tuple[str, ...]]:
    """Read the picture at `path` inside `root`: ([3, y, x] in 0..1, notes)."""
    picture, notes = open_picture(path, root)
    return picture_tensor(picture, pixels), notes


def open_picture(path: str | Path, root: Path) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture at `path` inside `root` as RGB in its original size, and notes."""
    with _file(path, root) as file:
        return _opened(file, path, _rgb)


def decode_picture(data: bytes, name: str) -> tuple[Image.Image, tuple[str, ...]]:
    """As `open_picture`, for a picture in a table's cell."""
    if not data:
        raise CaseError(f"image {brief(name)}: the cell is empty")
    return _opened(io.BytesIO(data), name, _rgb)


def picture_tensor(picture: Image.Image, pixels: Size) -> Tensor:
    """The resized centre with the aspect ratio of `pixels`, [3, y, x] in 0..1."""
    levels = np.array(resized(_cropped(picture, pixels), pixels))
    return torch.from_numpy(levels).permute(2, 0, 1).contiguous().float() / 255


def open_mask(path: str | Path, root: Path) -> Image.Image:
    """A mask in a picture file, with all channels."""
    with _file(path, root) as file:
        return _opened(file, path, Image.Image.copy)


def decode_mask(data: bytes, name: str) -> Image.Image:
    return _opened(io.BytesIO(data), name, Image.Image.copy)


def light_mask(mask: Image.Image) -> NDArray[np.uint8]:
    """1 where a mask picture is at least half white."""
    return (np.asarray(mask.convert("L")) >= 128).astype(np.uint8)


def mask_tensor(mask: NDArray[np.uint8], pixels: Size, picture: Image.Image) -> Tensor:
    """A mask of the picture's shape, cropped and resized like the picture, [1, y, x]."""
    height, width = mask.shape
    if abs(width * picture.height - height * picture.width) > max(height, width):
        raise CaseError(
            f"mask: {width}x{height} pixels do not have the same shape as the picture's "
            f"{picture.width}x{picture.height}"
        )
    return resize_mask(mask, pixels)


def brief(name: str | Path) -> str:
    """A name, shortened for messages."""
    text = str(name)
    return text if len(text) <= 200 else f"{text[:200]}…"


def inside(path: str | Path, root: Path) -> Path:
    """The file's resolved path; CaseError if it is not below `root`."""
    return Path(real_place(path, root))


def real_place(path: str | Path, root: Path) -> str:
    """As `inside`, as text: three times as fast, for identities of thousands of files."""
    given = os.fspath(path)
    if os.path.isabs(given) or "\0" in given:  # noqa: PTH117
        raise CaseError(f"image path {shown(given)}: it must be relative to the folder {root}")
    try:
        base = os.path.realpath(root)
        file = os.path.realpath(os.path.join(base, given))  # noqa: PTH118
    except (OSError, ValueError) as error:  # unpaired surrogate
        raise CaseError(f"image path {shown(given)} can't be followed: {error}") from error
    if not f"{file}/".startswith(f"{base.rstrip('/')}/"):
        raise CaseError(f"image path {shown(given)} leads out of the dataset's folder {root}")
    return file


def resize_mask(mask: NDArray[np.uint8], pixels: Size) -> Tensor:
    """Crop and resize a mask like its picture: area average, thresholded at one half."""
    cropped = _cropped(Image.fromarray(mask.astype(np.float32)), pixels)
    shares = np.array(cropped.resize((pixels.width, pixels.height), Image.Resampling.BOX))
    return torch.from_numpy((shares >= 0.5).astype(np.float32))[None]


def decode_rle(flat: object, height: int, width: int, *, cut: bool = False) -> NDArray[np.uint8]:
    """PIE-Bench's masks: [start, length, start, length, …] over the picture row by row.

    A run that ends beyond the picture is an error or, with `cut`, cut off.
    """
    mask = np.zeros(height * width, dtype=np.uint8)
    for number, (start, length) in enumerate(_runs(flat)):
        if start < 0 or length < 0:
            raise CaseError(f"mask: run {number} is ({start}, {length}); none may be negative")
        if start + length > mask.size and not cut:
            raise CaseError(
                f"mask: run {number} is ({start}, {length}); it ends beyond the "
                f"{height}x{width} = {mask.size} pixels"
            )
        mask[min(start, mask.size) : min(start + length, mask.size)] = 1
    return mask.reshape(height, width)


def runs_beyond(flat: object, pixels: int) -> int:
    """Number of runs that end beyond `pixels`."""
    return sum(start + length > pixels for start, length in _runs(flat))


def _runs(flat: object) -> Sequence[tuple[int, int]]:
    numbers = _integers(flat)
    if len(numbers) % 2:
        raise CaseError(f"mask: {len(numbers)} numbers; starts and lengths must come in pairs")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def with_border(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PIE-Bench's rule: the outermost row and column on each side belong to the edit.

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
            raise CaseError(f"mask: entry {place} is {shown(value)}; it must be a whole number")
    return flat


def _file(path: str | Path, root: Path) -> BinaryIO:
    """Open the picture's file; CaseError if that is not possible."""
    place = inside(path, root)
    try:
        kind = kind_of(place.stat().st_mode)
        if kind:
            raise CaseError(f"image {brief(path)}: this is {kind}, not a picture")
        file = open_regular(place)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CaseError(
            f"image {brief(path)}: there is no such file in the dataset's folder"
        ) from error
    except OSError as error:  # such as a name too long or missing permissions
        raise CaseError(f"image {brief(path)}: it can't be read ({error.strerror})") from error
    try:
        _check_bytes(os.fstat(file.fileno()).st_size, path)
    except CaseError:
        file.close()
        raise
    return file


def _check_bytes(size: int, name: str | Path) -> None:
    if size == 0:
        raise CaseError(f"image {brief(name)}: the file is empty")
    if size > MOST_BYTES:
        raise CaseError(f"image {brief(name)}: the file has more than {MOST_BYTES} bytes")


def _opened(file: BinaryIO, name: str | Path, finish: Callable[[Image.Image], T]) -> T:
    """Open the picture and apply `finish`; any error from a damaged file becomes a CaseError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, name)
            return finish(image)
    except CaseError as error:
        raise CaseError(_named(str(error), name)) from error
    except Image.DecompressionBombError as error:
        raise CaseError(_too_big(name)) from error
    except Image.UnidentifiedImageError as error:
        raise CaseError(f"image {brief(name)}: this is not a picture in a known format") from error
    except Exception as error:  # decoders may raise anything for invalid bytes
        raise CaseError(
            f"image {brief(name)}: the file is damaged or cut short ({error})"
        ) from error


def _named(problem: str, name: str | Path) -> str:
    return problem if problem.startswith("image ") else f"image {brief(name)}: {problem}"


def _check_size(image: Image.Image, name: str | Path) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise CaseError(_too_big(name))


def _too_big(name: str | Path) -> str:
    most = MOST_PIXELS // 10**6
    return f"image {brief(name)}: it has more than {most} million pixels; make it smaller"


def _rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    notes: list[str] = []
    if getattr(image, "is_animated", False):
        notes.append("animated: the first frame was used")
    turned = _upright(image, notes)
    if turned.mode in SIXTEEN_BIT:
        _check_depth(image)
        notes.append("16 bits a pixel were scaled to 8")
        turned = _eight_bit(turned)
    if turned.mode != "RGB" or turned.has_transparency_data:
        turned = _converted(turned, notes)
    return turned, tuple(notes)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Rotate or mirror the picture by its EXIF orientation, if that is valid."""
    orientation = image.getexif().get(ORIENTATION, 1)
    if orientation in range(2, 9):
        notes.append("turned upright by its EXIF orientation")
        return ImageOps.exif_transpose(image)
    if orientation != 1:
        notes.append(f"its EXIF orientation {shown(orientation)} is invalid: it was not turned")
    return image.copy()


def _check_depth(image: Image.Image) -> None:
    """Refuse depths other than 16 bits by a TIFF's tags: Pillow has one mode for 16 and 32 bits."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return
    bits, kind = tags.get(BITS, (16,)), tags.get(SAMPLE_FORMAT, (1,))
    if tuple(bits) != (16,) or tuple(kind) != (1,):
        signed = " with a sign" if tuple(kind) == (2,) else ""
        raise CaseError(
            f"{bits[0]} bits a pixel{signed} can't be used, because the value of white is unknown; "
            "save it as 8-bit RGB"
        )


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; a transparent value becomes an alpha channel."""
    values = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
    levels = np.floor(values / 257 + 0.5).astype(np.uint8)
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return Image.fromarray(levels)
    opaque = np.where(values == clear, 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(levels), Image.fromarray(opaque)])


def _converted(image: Image.Image, notes: list[str]) -> Image.Image:
    if image.mode not in CONVERTED:
        raise CaseError(f"a picture of mode {image.mode} can't be used; save it as 8-bit RGB")
    if not image.has_transparency_data:
        if image.mode not in ("L", "P", "1"):
            notes.append(f"converted from {image.mode} to RGB")
        return image.convert("RGB")
    notes.append("transparent parts were laid over white")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def centre_square(picture: Image.Image) -> Image.Image:
    return _cropped(picture, Size.square(1))


def _cropped(image: Image.Image, pixels: Size) -> Image.Image:
    """Crop to the largest centre with the aspect ratio of `pixels`."""
    part = pixels.within(Size.of(image))
    left, top = (image.width - part.width) // 2, (image.height - part.height) // 2
    return image.crop((left, top, left + part.width, top + part.height))


def resized(image: Image.Image, pixels: Size) -> Image.Image:
    """Resize a picture of that aspect ratio: by averaging for whole factors, else Lanczos."""
    size = pixels.width, pixels.height
    if image.size == size:
        return image
    whole = image.width % pixels.width == 0 and image.height % pixels.height == 0
    return image.resize(size, Image.Resampling.BOX if whole else Image.Resampling.LANCZOS)
