"""One edit as it is asked for on the page, and the same edit as a command and in Python."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from zerocon.api import opened
from zerocon.core.checks import ConfigError
from zerocon.datasets.images import FORMATS

MOST_BYTES = 20 * 2**20  # of an uploaded file
MOST_PIXELS = 40_000_000  # of an uploaded picture
LONGEST = 1000  # characters of a prompt


@dataclass(frozen=True)
class Asked:
    """The arguments of `zerocon.edit`; `picture` is the file's place, `shown` its name in text."""

    picture: Path
    shown: str
    target: str
    source: str = ""
    blend: tuple[str, str] | None = None
    overrides: tuple[str, ...] = ()  # the first is method=NAME
    plugins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise ConfigError("the target prompt is empty: describe the edited picture")
        for which, prompt in (("source", self.source), ("target", self.target)):
            if len(prompt) > LONGEST:
                raise ConfigError(
                    f"the {which} prompt has {len(prompt)} characters; {LONGEST} are enough"
                )

    @property
    def method(self) -> str:
        return self.overrides[0].partition("=")[2]

    def command(self) -> str:
        """For a POSIX shell, on lines of their own."""
        words = [f"zerocon edit {shlex.quote(self.shown)}"]
        if self.source:
            words.append(_option("--source", self.source))
        words.append(_option("--target", self.target))
        if self.blend:
            words.append(f"--blend {' '.join(shlex.quote(word) for word in self.blend)}")
        words += [f"--plugin {shlex.quote(module)}" for module in self.plugins]
        words.append(" ".join(shlex.quote(override) for override in self.overrides))
        return " \\\n  ".join(words)

    def python(self) -> str:
        """Leaves the picture in `edited`."""
        lines = [f"    {self.shown!r},"]
        if self.source:
            lines.append(f"    source={self.source!r},")
        lines.append(f"    target={self.target!r},")
        if self.blend:
            lines.append(f"    blend={self.blend!r},")
        lines.append(f"    method={self.method!r},")
        if self.overrides[1:]:
            lines.append(f"    overrides={[*self.overrides[1:]]!r},")
        imports = ["import zerocon", *(f"import {module}" for module in self.plugins)]
        return "\n".join([*imports, "", "edited = zerocon.edit(", *lines, ")", ""])


def _option(name: str, value: str) -> str:
    """A value that begins with a dash would be read as an option, if it were a word of its own."""
    return f"{name}{'=' if value.startswith('-') else ' '}{shlex.quote(value)}"


def uploaded(file: str | Path) -> Image.Image:
    """An uploaded picture, once its size is known to be bearable."""
    place = Path(file)
    size = place.stat().st_size
    if size > MOST_BYTES:
        raise ConfigError(
            f"{place.name} has {size / 2**20:.0f} MiB; at most {MOST_BYTES // 2**20} can be "
            "uploaded"
        )
    try:
        with Image.open(place, formats=FORMATS) as picture:  # reads its head only
            width, height = picture.size
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"{place.name} can't be read as a picture") from error
    if width * height > MOST_PIXELS:
        raise ConfigError(
            f"{place.name} has {width} × {height} pixels; at most {MOST_PIXELS // 10**6} million "
            "can be uploaded: make it smaller"
        )
    return opened(place)
