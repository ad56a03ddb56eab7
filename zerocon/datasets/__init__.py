"""Datasets: readers that turn files into cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.datasets.celebamask_hq import CelebAMaskHQ
    from zerocon.datasets.emu_edit import EmuEdit
    from zerocon.datasets.folder import Folder
    from zerocon.datasets.magicbrush import MagicBrush
    from zerocon.datasets.pairs import Pairs
    from zerocon.datasets.pie_bench import PieBench
    from zerocon.datasets.pie_bench_pp import PieBenchPP
    from zerocon.datasets.shapes import ShapesPIE
    from zerocon.datasets.ti2i import TI2I

__all__ = [
    "TI2I",
    "CelebAMaskHQ",
    "EmuEdit",
    "Folder",
    "MagicBrush",
    "Pairs",
    "PieBench",
    "PieBenchPP",
    "ShapesPIE",
]

__getattr__ = offer(
    __name__,
    dataset={
        "CelebAMaskHQ": "celebamask_hq",
        "EmuEdit": "emu_edit",
        "Folder": "folder",
        "MagicBrush": "magicbrush",
        "Pairs": "pairs",
        "PieBench": "pie_bench",
        "PieBenchPP": "pie_bench_pp",
        "ShapesPIE": "shapes",
        "TI2I": "ti2i",
    },
)
