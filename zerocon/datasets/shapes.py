"""ShapesPIE as a dataset: PIE-Bench's format with ground truths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError, World
from zerocon.core.checks import shown
from zerocon.core.memory import cache_folder
from zerocon.core.size import Size
from zerocon.datasets.base import Choice, Row, gather, text
from zerocon.datasets.pie_bench import PieBench, relative
from zerocon.shapes.benchmark import COUNTS, SPLITS, write_benchmark
from zerocon.shapes.reader import edit_success
from zerocon.shapes.scene import Scene

VERSION = 1  # of the benchmark's files; each version has its own folder


class ShapesPIE(PieBench):
    """ShapesPIE of `size` 700, 100 or 20; missing files are generated.

    `root` is the files' folder; by default one in `$ZEROCON_CACHE` or `~/.cache/zerocon`. The
    masks have no annotation noise, so PIE-Bench's border rule does not apply.
    """

    native_side = 64
    world: World = "shapes"

    def __init__(
        self,
        size: int,
        split: str,
        pixels: Size,
        *,
        root: str | Path | None = None,
        **chosen: Unpack[Choice],
    ) -> None:
        self.check_settings({"size": size, "split": split, **chosen})
        folder = default_root(size, split) if root is None else Path(root)
        _write(folder, size, split)
        super().__init__(folder, pixels, noisy_border=False, **chosen)
        self.name = f"shapes_pie_{size}"

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        super().check_settings(settings)
        if settings.get("size", 20) not in COUNTS:
            size = settings["size"]
            raise DatasetError(f"size is {size}; ShapesPIE comes in the sizes {sorted(COUNTS)}")
        if settings.get("split", "test") not in SPLITS:
            split = shown(settings["split"])
            raise DatasetError(f"split is {split}; it must be one of {', '.join(SPLITS)}")

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {**super()._files(entry), "ground truth": _truth(entry)}

    @classmethod
    def world_of(cls, root: str | Path | None = None, **_: object) -> World:  # noqa: ARG003 - as its base
        return cls.world

    def _case(self, case_id: str, entry: Row) -> Case:
        fields = gather(
            case=lambda: super(ShapesPIE, self)._case(case_id, entry),
            ground_truth=lambda: self._ground_truth(entry),
            source_scene=lambda: _scene(entry, "source_scene"),
            target_scene=lambda: _scene(entry, "target_scene"),
        )
        scenes = (Scene.from_json(fields[f"{which}_scene"]) for which in ("source", "target"))
        source, target = scenes
        done = partial(edit_success, source=source, target=target)
        return dataclasses.replace(fields.pop("case"), edit_done=done, **fields)

    def _ground_truth(self, entry: Row) -> Tensor:
        return self._picture(_truth(entry), [])


def _truth(entry: Row) -> Path:
    return Path("ground_truth") / relative(text(entry, "image_path"))


def default_root(size: int, split: str) -> Path:
    return cache_folder() / f"shapes_pie_v{VERSION}" / f"{split}_{size}"


def _scene(entry: Row, field: str) -> dict[str, Any]:
    scene = entry.get(field)
    try:
        Scene.from_json(cast("dict[str, Any]", scene))
    except Exception as error:  # an invalid scene fails only this case
        raise CaseError(f"{field} is {shown(scene)}; it must be a scene ({error!r})") from error
    return dict(cast("Mapping[str, Any]", scene))


def _write(folder: Path, size: int, split: str) -> None:
    try:
        write_benchmark(folder, size, split)
    except OSError as error:
        raise DatasetError(f"ShapesPIE can't be written to {folder}: {error}") from error
