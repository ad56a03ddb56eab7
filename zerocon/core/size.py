"""Heights and widths of pictures, in pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zerocon.core.checks import ConfigError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


class Size(NamedTuple):
    """Height and width of pictures in pixels, in the order of a tensor's axes."""

    height: int
    width: int

    @classmethod
    def square(cls, side: int) -> Size:
        return cls(side, side)

    @classmethod
    def of(cls, picture: Image.Image) -> Size:
        return cls(picture.height, picture.width)

    @classmethod
    def of_tensor(cls, pictures: Tensor) -> Size:
        """Of pictures or latents, [..., y, x]."""
        return cls(*pictures.shape[-2:])

    @property
    def is_square(self) -> bool:
        return self.height == self.width

    def within(self, outer: Size) -> Size:
        """The largest part of `outer` with this aspect ratio."""
        if outer.width * self.height > outer.height * self.width:
            return Size(outer.height, max(1, _rounded(outer.height * self.width, self.height)))
        return Size(max(1, _rounded(outer.width * self.height, self.width)), outer.width)

    def __str__(self) -> str:
        """Width first, as pictures' sizes are usually written."""
        return f"{self.width} × {self.height}"


def chosen_size(
    side: int | None, height: int | None, width: int | None, usual: Size, where: str = "backbone."
) -> Size:
    """What the settings `side`, or `height` and `width`, ask for; `where` begins their names."""
    if side is not None and (height is not None or width is not None):
        raise ConfigError(f"give {where}side, or {where}height and {where}width, not both")
    if height is not None and width is not None:
        return Size(height, width)
    if height is not None or width is not None:
        raise ConfigError(f"{where}height and {where}width go together; one of them is missing")
    return usual if side is None else Size.square(side)


def _rounded(product: int, divisor: int) -> int:
    return (2 * product + divisor) // (2 * divisor)
