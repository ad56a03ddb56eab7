"""PIE-Bench++ in the Hugging Face hub's format: Parquet files, one folder per edit type."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError
from zerocon.core.checks import shown
from zerocon.core.size import Size
from zerocon.datasets.base import Choice, FileDataset, Row, gather, listed
from zerocon.datasets.parquet import PictureTable, parquet_files
from zerocon.datasets.pie_bench import (
    EDIT_NAMES,
    TYPE_IDS,
    Protocol,
    Reading,
    pie_mask,
    prompt,
    source_prompt,
)

HINT = "PIE-Bench++ has folders such as 1_change_object_80 with V1-00000-of-00001.parquet"
NEEDED = ("id", "image", "source_prompt", "target_prompt")
OPTIONAL = ("mask", "blended_words", "edit_action", "aspect_mapping")


class PieBenchPP(FileDataset):
    """The rows of every `<folder>/V1*.parquet` below `root`; a folder's first digit is the type.

    Required columns: `id`, `image` (bytes, or the hub's struct of bytes and path),
    `source_prompt`, `target_prompt`. Optional: `mask` ("start length start length …" over
    512x512, or a list of numbers), `blended_words` (a JSON list of "source,target"),
    `edit_action`, `aspect_mapping`. Cases in folders without a type's digit have no type.
    `protocol`: as for PIE-Bench.
    """

    name = "pie_bench_pp"
    squares = True
    type_names = TYPE_IDS

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        *,
        noisy_border: bool = True,
        protocol: Protocol = "masked",
        **chosen: Unpack[Choice],
    ) -> None:
        self.reading = Reading(noisy_border, protocol == "published")
        root = Path(root)
        self._table = PictureTable(parquet_files(root, HINT), NEEDED, OPTIONAL, ("image",))
        listing = listed([(row["id"], row) for row in self._table.rows])
        if not listing:
            raise DatasetError(f"the Parquet files in {root} have no rows")
        super().__init__(root, pixels, root, listing, [self.reading.said()], **chosen)

    def source_path(self, case_id: str) -> str | None:
        """PIE-Bench's path, where pictures are named by id."""
        folder = _folder(self.entry(case_id), self.root)
        return f"{folder}/{case_id}.jpg" if folder else None

    def _edit_type(self, entry: Row) -> str:
        return _folder(entry, self.root)[:1]

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {"table": self._table.place(entry, self.root)}

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            image=lambda: self._decoded(self._table.picture(entry, "image"), case_id, notes),
            source_prompt=lambda: source_prompt(entry, "source_prompt", self.reading, notes),
            target_prompt=lambda: prompt(entry, "target_prompt"),
            blend_words=lambda: _blend_words(entry, notes),
            mask=lambda: self._mask(entry, notes),
        )
        kind = self._edit_type(entry)
        name = EDIT_NAMES[int(kind)] if kind else ""
        return Case(id=case_id, edit_type=kind, edit_name=name, notes=tuple(notes), **fields)

    def _mask(self, entry: Row, notes: list[str]) -> Tensor | None:
        runs = entry.get("mask")
        return None if runs is None else pie_mask(_numbers(runs), self.pixels, self.reading, notes)


def _folder(entry: Row, root: Path) -> str:
    """The innermost folder named after an edit type, such as "1_change_object_80"."""
    parts = entry["place"].file.relative_to(root).parts[:-1]
    named = [p for p in (root.name, *parts) if re.match(r"\d_", p)]
    return named[-1] if named else ""


def _numbers(runs: Any) -> Any:
    if not isinstance(runs, str):
        return runs
    try:
        return [int(number) for number in runs.replace(",", " ").strip("[] ").split()]
    except ValueError as error:
        raise CaseError(
            f"mask is {shown(runs)}; it must be whole numbers: start length …"
        ) from error


def _blend_words(entry: Row, notes: list[str]) -> tuple[str, str] | None:
    """The blend words if a single aspect is edited; pairs for several aspects are not used."""
    said = entry.get("blended_words")
    pairs = _pairs(said) if isinstance(said, str) else said
    if not pairs:
        return None
    words = [w.strip() for w in str(pairs[0]).replace(",", " ").split()]
    if len(pairs) > 1 or len(words) != 2:
        notes.append(f"blended_words is {shown(said)}, not one pair of words: it was not used")
        return None
    return words[0], words[1]


def _pairs(said: str) -> list[Any]:
    try:
        pairs = json.loads(said)
    except (ValueError, RecursionError):
        return [said] if said.strip() else []
    return pairs if isinstance(pairs, list) else [pairs]
