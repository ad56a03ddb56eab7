"""A report's plots: in the page, and as files on request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from zerocon.reports.drawing import save, svg
from zerocon.reports.page.markup import plot


@dataclass(frozen=True)
class Drawings:
    folder: Path | None  # where every plot is also written, as PNG and SVG

    def plot(self, figure: Figure, said: str, name: str = "") -> str:
        """The plot as an element of the page; `said` describes it and names its files."""
        if self.folder is not None:
            save(figure, _free(self.folder / f"{_slug(said)}.png"))
        return plot(svg(figure), said, name)


def _slug(said: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", said.lower()).strip("-")[:100]


def _free(file: Path) -> Path:
    """The file's name with a number if there are several plots of one description."""
    number = 2
    found = file
    while found.exists():
        found = file.with_stem(f"{file.stem}-{number}")
        number += 1
    return found
