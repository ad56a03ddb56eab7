"""CelebAMask-HQ: faces, a mask for each part of a face, and a list of edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import shown
from zerocon.core.size import Size
from zerocon.datasets.base import (
    Broken,
    Choice,
    FileDataset,
    Row,
    free_type,
    gather,
    listed,
    optional_text,
    text,
)
from zerocon.datasets.images import (
    inside,
    light_mask,
    open_mask,
    resize_mask,
)
from zerocon.datasets.pairs import check_list_name, read_rows

PICTURES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
FACES_A_FOLDER = 2000  # masks of faces 0 to 1999 are in 0/, the next 2000 in 1/
PARTS = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
    "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
NEEDED = ("image", "source", "target")
OPTIONAL = ("id", "parts", "instruction", "edit_type")
HINT = f"it has the columns {', '.join(NEEDED)} and may have {', '.join(OPTIONAL)}"


class CelebAMaskHQ(FileDataset):
    """A case for each line of `prompts` (.csv, .jsonl or .parquet) in the unpacked archive.

    `root` has `CelebA-HQ-img/<number>.jpg` and
    `CelebAMask-HQ-mask-anno/<number // 2000>/<number, five digits>_<part>.png`.
    Required columns: `image` (the face's number), `source`, `target`. Optional: `parts` (names
    as in the masks' files, separated by spaces; their union is the mask; no mask without
    parts), `id` (default: the number, for repeated ones with a count: `17`, `17-2`),
    `instruction`, `edit_type`.
    """

    name = "celebamask_hq"
    type_names = None

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        *,
        prompts: str = "prompts.csv",
        **chosen: Unpack[Choice],
    ) -> None:
        rows = read_rows(prompts, Path(root), NEEDED, OPTIONAL, HINT)
        entries = listed(_with_ids(rows))
        super().__init__(root, pixels, Path(root) / prompts, entries, **chosen)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        super().check_settings(settings)
        check_list_name("prompts", settings.get("prompts", "prompts.csv"))

    def source_path(self, case_id: str) -> str | None:
        return f"{_number(self.entry(case_id))}.jpg"

    def _edit_type(self, entry: Row) -> str:
        return free_type(entry)

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            image=lambda: self._image(entry, notes),
            source_prompt=lambda: text(entry, "source").strip(),
            target_prompt=lambda: text(entry, "target").strip(),
            instruction=lambda: optional_text(entry, "instruction").strip(),
            mask=lambda: self._mask(_masks(entry), _number(entry), notes),
        )
        kind = self._edit_type(entry)
        return Case(id=case_id, edit_type=kind, edit_name=kind, notes=tuple(notes), **fields)

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        masks = {f"mask of {part}": place for part, place in _masks(entry).items()}
        return {"picture": _place(entry), **masks}

    def _image(self, entry: Row, notes: list[str]) -> Tensor:
        return self._picture(_place(entry), notes)

    def _mask(self, places: Mapping[str, Path], number: int, notes: list[str]) -> Tensor | None:
        """The union of the parts; parts that are not visible have no file."""
        if not places:
            return None
        there = {part: p for part, p in places.items() if inside(p, self.root).exists()}
        if not there:
            raise CaseError(f"mask: face {number} has none of the parts {', '.join(places)}")
        notes.extend(f"face {number} has no part {part}" for part in places if part not in there)
        masks = [light_mask(open_mask(place, self.root)) for place in there.values()]
        if len({mask.shape for mask in masks}) > 1:
            raise CaseError(f"mask: the parts of face {number} differ in size")
        union = np.maximum.reduce(masks)
        return resize_mask(union, self.pixels)


def _with_ids(rows: Sequence[Row | Broken]) -> list[tuple[object, object]]:
    uses: dict[str, int] = {}
    entries: list[tuple[object, object]] = []
    for place, row in enumerate(rows):
        if isinstance(row, Broken):
            entries.append((f"line {place + 1}", row))
        elif row.get("id") not in (None, ""):
            entries.append((row["id"], row))
        else:
            face = str(row.get("image"))
            uses[face] = uses.get(face, 0) + 1
            entries.append((face if uses[face] == 1 else f"{face}-{uses[face]}", row))
    return entries


def _place(entry: Row) -> Path:
    return Path(PICTURES) / f"{_number(entry)}.jpg"


def _masks(entry: Row) -> dict[str, Path]:
    """The path of each listed part's mask."""
    number = _number(entry)
    folder = Path(MASKS) / str(number // FACES_A_FOLDER)
    return {part: folder / f"{number:05d}_{part}.png" for part in _parts(entry)}


def _number(entry: Row) -> int:
    """The face's number, which may be given as a file name."""
    value = str(entry.get("image")).strip().removesuffix(".jpg")
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise CaseError(f"image is {shown(entry.get('image'))}; it must be a face's number")
    return int(value)


def _parts(entry: Row) -> list[str]:
    parts = optional_text(entry, "parts").replace(",", " ").replace("+", " ").split()
    for part in parts:
        if part not in PARTS:
            raise CaseError(f"parts: {shown(part)} is none of {', '.join(PARTS)}")
    return parts
