"""MagicBrush in the Hugging Face hub's format: instructions, masks and edited pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import shown
from zerocon.core.size import Size
from zerocon.datasets.base import Choice, FileDataset, Row, gather, listed, read_json, text
from zerocon.datasets.images import (
    decode_mask,
    decode_picture,
    mask_tensor,
    picture_tensor,
)
from zerocon.datasets.parquet import PictureTable, of_split, parquet_files

HINT = "MagicBrush has data/dev-….parquet"
NEEDED = ("img_id", "turn_index", "source_img", "instruction")
PICTURES = ("source_img", "mask_img", "target_img")
DESCRIPTIONS = "global_descriptions.json"
WHITE, BLACK = 250, 5  # thresholds of a mask's white and black, for every channel
MARGIN = 20  # the source counts as white too if it is less than this below the mask's white


class MagicBrush(FileDataset):
    """The edit turns of one split. A case's id is `<img_id>-<turn_index>`, its type the turn.

    Required columns: `img_id`, `turn_index`, `source_img`, `instruction`. Optional: `mask_img`
    (the region is transparent), `target_img` (the ground truth). The hub has no captions. If
    `root` has the authors' `global_descriptions.json`
    (`{img_id: {"<img_id>-input.png": text, "<img_id>-output1.png": text}}`), they are the
    prompts; otherwise the instruction is the target prompt and there is no source prompt.
    A mask without transparency is read as black and white if it has no other colours; otherwise
    the region is where the mask is white and the source picture is not.
    """

    name = "magicbrush"
    type_names = ("1", "2", "3")

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        *,
        split: str = "dev",
        **chosen: Unpack[Choice],
    ) -> None:
        root = Path(root)
        files = of_split(parquet_files(root, HINT), root, split)
        self._table = PictureTable(files, NEEDED, (), PICTURES)
        self._captions = _captions(root)
        rows = [(f"{row['img_id']}-{row['turn_index']}", row) for row in self._table.rows]
        super().__init__(root, pixels, root, listed(rows), **chosen)

    def _edit_type(self, entry: Row) -> str:
        return str(entry["turn_index"])

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            captions=lambda: self._before_and_after(entry, notes),
            instruction=lambda: text(entry, "instruction").strip(),
            pictures=lambda: self._source_and_mask(entry, notes),
            ground_truth=lambda: self._cell(entry, "target_img", notes),
        )
        turn = self._edit_type(entry)
        source, target = fields.pop("captions")
        image, mask = fields.pop("pictures")
        return Case(
            id=case_id,
            image=image,
            mask=mask,
            source_prompt=source,
            target_prompt=target or fields["instruction"],
            edit_type=turn,
            edit_name=f"turn {turn}",
            notes=tuple(notes),
            **fields,
        )

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {"table": self._table.place(entry, self.root)}

    def _texts(self, entry: Row) -> Any:
        names = _caption_names(str(entry["img_id"]), entry["turn_index"])
        return [super()._texts(entry), [self._captions.get(name) for name in names]]

    def _before_and_after(self, entry: Row, notes: list[str]) -> tuple[str, str]:
        """The captions of the picture before and after this turn; "" if missing."""
        image, turn = text(entry, "img_id"), entry["turn_index"]
        if not isinstance(turn, int) or turn < 1:
            raise CaseError(f"turn_index is {shown(turn)}; it must be 1 or more")
        source, target = (self._captions.get(name, "") for name in _caption_names(image, turn))
        if not target:
            notes.append("there is no caption of the edit: the instruction is the target prompt")
        return source, target

    def _source_and_mask(self, entry: Row, notes: list[str]) -> tuple[Tensor, Tensor | None]:
        data = self._table.picture(entry, "source_img")
        source, more = decode_picture(data or b"", "source_img")
        notes.extend(more)
        image = picture_tensor(source, self.pixels)
        painted = self._table.picture(entry, "mask_img")
        if painted is None:
            return image, None
        region = _region(decode_mask(painted, "mask_img"), source, notes)
        return image, mask_tensor(region, self.pixels, source)

    def _cell(self, entry: Row, column: str, notes: list[str]) -> Tensor | None:
        data = self._table.picture(entry, column)
        return None if data is None else self._decoded(data, column, notes)


def _caption_names(image: str, turn: object) -> tuple[str, str]:
    """Keys of the captions of the picture before and after a turn."""
    if not isinstance(turn, int):
        return "", ""
    before = f"{image}-input.png" if turn == 1 else f"{image}-output{turn - 1}.png"
    return before, f"{image}-output{turn}.png"


def _region(mask: Image.Image, source: Image.Image, notes: list[str]) -> NDArray[np.uint8]:
    """1 where a mask is transparent or, in masks without transparency, white."""
    clear = np.asarray(mask.convert("RGBA"))[..., 3] < 128
    if mask.has_transparency_data and clear.any():
        return clear.astype(np.uint8)
    pixels = np.asarray(mask.convert("RGB"))
    white = pixels.min(axis=2) >= WHITE
    if (white | (pixels.max(axis=2) <= BLACK)).all():
        notes.append("the mask has no transparency: its white is the region")
        return white.astype(np.uint8)
    return _newly_white(white, source, notes)


def _newly_white(
    white: NDArray[np.bool_], source: Image.Image, notes: list[str]
) -> NDArray[np.uint8]:
    """The region of a mask that is the source picture with the region in white."""
    before = np.asarray(source).min(axis=2)
    if before.shape != white.shape:
        raise CaseError(
            f"mask_img: it has {white.shape[1]}x{white.shape[0]} pixels, the source picture "
            f"{source.width}x{source.height}, and no transparency that marks the region"
        )
    region = white & (before < WHITE - MARGIN)
    if not region.any():
        raise CaseError(
            "mask_img: it has no transparency and no white that is not in the source picture; "
            "the region is unknown"
        )
    notes.append("the mask has no transparency: the region is its white that is not in the source")
    return region.astype(np.uint8)


def _captions(root: Path) -> dict[str, str]:
    """The picture's name -> its caption."""
    if not os.path.lexists(root / DESCRIPTIONS):
        return {}
    found = read_json(DESCRIPTIONS, root, "it holds {img_id: {picture: caption}}")
    captions: dict[str, str] = {}
    if isinstance(found, dict):
        for pictures in cast("Mapping[str, Any]", found).values():
            if isinstance(pictures, dict):
                named = cast("Mapping[str, Any]", pictures)
                captions.update({k: v for k, v in named.items() if isinstance(v, str)})
    return captions
