"""How long runs take on a GPU, from counted rows through the network.

A row is one latent, evaluated once (`counting.py`). This is an estimate before a run, from
arithmetic; a run's progress says what it really takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.backbones.shapes import Shapes
from zerocon.config.settings import RunSettings
from zerocon.core.conditions import Condition
from zerocon.core.forward import Evaluations
from zerocon.runs.counting import count_rows

# Floating-point operations of one row of Stable Diffusion 1.x's U-Net at 512 pixels, and of its
# autoencoder for one picture, as torch counts them (a test counts them again).
UNET_ROW = 0.803e12
ENCODE, DECODE = 1.117e12, 2.515e12
# Operations in a second that a card is assumed to sustain in half precision: a quarter to a third
# of what its maker states. {kind of card: (an example, operations)}
CARDS: dict[str, tuple[str, float]] = {
    "24 GB": ("RTX 4090", 50e12),
    "80 GB": ("A100", 90e12),
}
# Where `zerocon download` puts the models that UNET_ROW is about.
UNET_CHOICES = ("sd14", "sd15")
# Gigabytes of Stable Diffusion 1.x's weights in half precision and of `metrics=sd`, and what
# autograd keeps of one row through the whole U-Net, which bounds what a row with a gradient takes.
LOADED_GB, GRADIENT_GB = 4.2, 3.7
# Bytes that a case leaves: its edited picture at 512 pixels as PNG, and its part of the gallery.
PICTURE_BYTES, RECORD_BYTES, GALLERY_BYTES = 450_000, 2_000, 60_000


@cache
def _small() -> Backbone:
    """A small U-Net with the sites of Stable Diffusion's."""
    return Shapes(device="cpu").load()


def counted_rows(settings: RunSettings) -> int:
    """Rows that one edit takes, counted on a small U-Net instead of the run's own."""
    return count_rows(replace(settings, backbone=Shapes(device="cpu")), _small()).edit


@dataclass
class _Watched(Evaluations):
    """Also knows the most rows of one pass that a gradient was asked of."""

    most: int = 0

    def count(self, z: Tensor, condition: Condition) -> None:
        before = self.backward
        super().count(z, condition)
        self.most = max(self.most, self.backward - before)


def rows_and_gradients(settings: RunSettings) -> tuple[int, int]:
    """Rows that one edit takes, and the most of them at once that a gradient is asked of."""
    backbone = _small()
    usual, watched = backbone.evaluations, _Watched()
    backbone.evaluations = watched
    try:
        return counted_rows(settings), watched.most
    finally:
        backbone.evaluations = usual


def gigabytes(gradients: int) -> float:
    """Of a card's memory, for one picture at a time in half precision; activations beside it."""
    return LOADED_GB + gradients * GRADIENT_GB


def hours(rows: int, cases: int, card: str) -> float:
    """Hours of editing: `rows` for each case, and its picture encoded and decoded."""
    operations = cases * (rows * UNET_ROW + ENCODE + DECODE)
    return operations / CARDS[card][1] / 3600


def disk_bytes(cases: int) -> int:
    """What a run leaves on disk, without the cache."""
    return cases * (PICTURE_BYTES + RECORD_BYTES) + min(cases, 40) * GALLERY_BYTES


def table_line(name: str, rows: int, gradients: int, each: Sequence[float]) -> str:
    times = " | ".join(f"{value:.1f}" for value in each)
    return f"| {name} | {rows} | {gradients or ''} | {gigabytes(gradients):.1f} | {times} |"
