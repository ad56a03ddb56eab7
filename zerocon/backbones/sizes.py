"""The settings that say how large the edited pictures are: `side`, or `height` and `width`."""

from __future__ import annotations

from typing import Protocol

from zerocon.core.checks import ConfigError, in_range
from zerocon.core.size import Size, chosen_size

NAMES = ("side", "height", "width")


class Sized(Protocol):
    """In pixels; null in all: what the model was trained at."""

    @property
    def side(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def width(self) -> int | None: ...


def size_of(settings: Sized, usual: int) -> Size:
    return chosen_size(settings.side, settings.height, settings.width, Size.square(usual))


def check_settings(settings: Sized) -> None:
    """Raise ConfigError before the model is loaded."""
    for name in NAMES:
        value = getattr(settings, name)
        if value is not None:
            in_range(f"backbone.{name}", value, 8)
    size_of(settings, 0)


def check_size(size: Size, step: int, longest: int | None = None) -> None:
    """Height and width are whole numbers of `step` pixels, at most `longest`."""
    if size.is_square:
        said, each = f"backbone.side is {size.height}", "it"
    else:
        said = f"the backbone's height and width are {size.height} and {size.width}"
        each = "each"
    for value in size:
        if value % step:
            raise ConfigError(f"{said}; {each} must be a multiple of {step}")
        if longest is not None and value > longest:
            raise ConfigError(f"{said}; this model takes at most {longest}")
