"""MagicBrush as the Hugging Face hub keeps it: instructions, masks and edited pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import shown
from zerocon.datasets.base import Choice, FileDataset, Row, gather, listed, read_json, text
from zerocon.datasets.images import decode_mask, mask_tensor
from zerocon.datasets.parquet import PictureTable, of_split, parquet_files

HINT = "MagicBrush has data/dev-….parquet"
NEEDED = ("img_id", "turn_index", "source_img", "instruction")
PICTURES = ("source_img", "mask_img", "target_img")
DESCRIPTIONS = "global_descriptions.json"
WHITE = 250  # a mask's white region, on every channel


class MagicBrush(FileDataset):
    """The edit turns of one split; a case's id is `<img_id>-<turn_index>`, its type the turn.

    Columns needed: `img_id`, `turn_index`, `source_img`, `instruction`; may lack: `mask_img`
    (the region is transparent, or white), `target_img` (the ground truth). The hub has no
    captions. With the authors' `global_descriptions.json` in `root`
    (`{img_id: {"<img_id>-input.png": text, "<img_id>-output1.png": text}}`) they are the
    prompts; without, the target prompt is the instruction and there is no source prompt.
    """

    name = "magicbrush"
    type_names = ("1", "2", "3")

    def __init__(
        self,
        root: str | Path,
        side: int,
        *,
        split: str = "dev",
        **chosen: Unpack[Choice],
    ) -> None:
        root = Path(root)
        files = of_split(parquet_files(root, HINT), root, split)
        self._table = PictureTable(files, NEEDED, (), PICTURES)
        self._captions, captions = _captions(root)
        rows = [(f"{row['img_id']}-{row['turn_index']}", row) for row in self._table.rows]
        said = [self._table.digest(), captions]
        super().__init__(root, side, root, listed(rows), said, **chosen)

    def _edit_type(self, entry: Row) -> str:
        return str(entry["turn_index"])

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            captions=lambda: self._before_and_after(entry, notes),
            instruction=lambda: text(entry, "instruction").strip(),
            image=lambda: self._cell(entry, "source_img", notes),
            mask=lambda: self._mask(entry),
            ground_truth=lambda: self._cell(entry, "target_img", notes),
        )
        turn = self._edit_type(entry)
        source, target = fields.pop("captions")
        return Case(
            id=case_id,
            source_prompt=source,
            target_prompt=target or fields["instruction"],
            edit_type=turn,
            edit_name=f"turn {turn}",
            notes=tuple(notes),
            **fields,
        )

    def _before_and_after(self, entry: Row, notes: list[str]) -> tuple[str, str]:
        """The captions of the picture before and after this turn; "" where there are none."""
        image, turn = text(entry, "img_id"), entry["turn_index"]
        if not isinstance(turn, int) or turn < 1:
            raise CaseError(f"turn_index is {shown(turn)}; it must be 1 or more")
        before = f"{image}-input.png" if turn == 1 else f"{image}-output{turn - 1}.png"
        source = self._captions.get(before, "")
        target = self._captions.get(f"{image}-output{turn}.png", "")
        if not target:
            notes.append("there is no caption of the edit: the instruction is the target prompt")
        return source, target

    def _cell(self, entry: Row, column: str, notes: list[str]) -> Tensor | None:
        data = self._table.picture(entry, column)
        if data is None and column != "source_img":
            return None
        return self._decoded(data, column, notes)

    def _mask(self, entry: Row) -> Tensor | None:
        data = self._table.picture(entry, "mask_img")
        if data is None:
            return None
        mask = decode_mask(data, "mask_img")
        return mask_tensor(_region(mask), self.side, mask)


def _region(mask: Image.Image) -> NDArray[np.uint8]:
    """1 where a mask is transparent; of one without transparency, where it is white."""
    if mask.has_transparency_data:
        return (np.asarray(mask.convert("RGBA"))[..., 3] < 128).astype(np.uint8)
    return (np.asarray(mask.convert("RGB")).min(axis=2) >= WHITE).astype(np.uint8)


def _captions(root: Path) -> tuple[dict[str, str], str]:
    """The picture's name -> its caption, and a digest."""
    if not (root / DESCRIPTIONS).exists():
        return {}, ""
    found, digest = read_json(DESCRIPTIONS, root, "it holds {img_id: {picture: caption}}")
    captions: dict[str, str] = {}
    if isinstance(found, dict):
        for pictures in cast("Mapping[str, Any]", found).values():
            if isinstance(pictures, dict):
                named = cast("Mapping[str, Any]", pictures)
                captions.update({k: v for k, v in named.items() if isinstance(v, str)})
    return captions, digest
