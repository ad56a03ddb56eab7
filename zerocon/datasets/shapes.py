"""ShapesPIE as a dataset: PIE-Bench's format, and beside it what only a drawn world knows."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from zerocon.cases import Case, DatasetError
from zerocon.datasets.images import read_image
from zerocon.datasets.pie_bench import PieBench
from zerocon.shapes.benchmark import COUNTS, SPLITS, write_benchmark

VERSION = 1  # of the benchmark's files; a new one gets a new folder


class ShapesPIE:
    """ShapesPIE of `size` 700, 100 or 20; its files are written when they are missing.

    `root` is the folder they are in; by default one in `$ZEROCON_CACHE` or `~/.cache/zerocon`.
    The masks have no annotation noise, so PIE-Bench's border rule is left out.
    """

    def __init__(
        self,
        size: int,
        split: str,
        side: int,
        limit: int | None = None,
        *,
        root: str | Path | None = None,
        edit_types: Sequence[str | int] | None = None,
    ) -> None:
        if size not in COUNTS:
            raise DatasetError(f"size is {size}; ShapesPIE comes in the sizes {sorted(COUNTS)}")
        if split not in SPLITS:
            raise DatasetError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
        self.name = f"shapes_pie_{size}"
        folder = default_root(size, split) if root is None else Path(root)
        _write(folder, size, split)
        self._cases = PieBench(folder, side, limit, edit_types=edit_types, noisy_border=False)
        self.fingerprint = self._cases.fingerprint

    @property
    def ids(self) -> Sequence[str]:
        return self._cases.ids

    def load(self, case_id: str) -> Case:
        case, entry = self._cases.load(case_id), self._cases.entry(case_id)
        place = Path("ground_truth") / entry["image_path"]
        ground_truth, _ = read_image(place, self._cases.root, self._cases.side)
        return dataclasses.replace(
            case,
            ground_truth=ground_truth,
            source_scene=entry["source_scene"],
            target_scene=entry["target_scene"],
        )


def default_root(size: int, split: str) -> Path:
    cache = os.environ.get("ZEROCON_CACHE")
    base = Path(cache) if cache else Path.home() / ".cache" / "zerocon"
    return base / f"shapes_pie_v{VERSION}" / f"{split}_{size}"


def _write(folder: Path, size: int, split: str) -> None:
    try:
        write_benchmark(folder, size, split)
    except OSError as error:
        raise DatasetError(f"ShapesPIE can't be written to {folder}: {error}") from error
