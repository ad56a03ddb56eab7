"""PIE-Bench, as published: a mapping file, pictures by edit type, masks as run lengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError, World
from zerocon.core.checks import shown
from zerocon.datasets.base import (
    Choice,
    FileDataset,
    Row,
    gather,
    listed,
    optional_text,
    read_json,
    text,
)
from zerocon.datasets.images import decode_rle, resize_mask, with_border

EDIT_NAMES = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change content",
    "change pose",
    "change color",
    "change material",
    "change background",
    "change style",
)
TYPE_IDS = tuple(str(number) for number in range(len(EDIT_NAMES)))
MASK_SIDE = 512  # the masks' pixels, whatever the picture's
MAPPING_FILE = "mapping_file.json"
PICTURES = "annotation_images"


class PieBench(FileDataset):
    """The cases of a folder in PIE-Bench's format, in the mapping file's order.

    `edit_types` (ids, "0" to "9") and `ids` choose cases, `subset` draws that many of them by
    lot (`subset_seed`), then `limit` keeps the first ones.
    `noisy_border` applies PIE-Bench's rule for the masks' outermost pixels.
    """

    name = "pie_bench"
    type_names = TYPE_IDS

    def __init__(
        self,
        root: str | Path,
        side: int,
        *,
        noisy_border: bool = True,
        **chosen: Unpack[Choice],
    ) -> None:
        self.noisy_border = noisy_border
        mapping, digest = read_mapping(Path(root), MAPPING_FILE)
        where = Path(root) / MAPPING_FILE
        said = [digest, noisy_border]
        super().__init__(root, side, where, listed(mapping), said, **chosen)

    @classmethod
    def world_of(cls, root: str | Path, **_: object) -> World:
        """ShapesPIE is written in this format, too; its entries describe scenes."""
        file = Path(root) / MAPPING_FILE
        drawn = file.is_file() and b'"source_scene"' in file.read_bytes()
        return "shapes" if drawn else cls.world

    def source_path(self, case_id: str) -> str | None:
        return text(self.entry(case_id), "image_path")

    def _edit_type(self, entry: Row) -> str:
        return str(entry.get("editing_type_id", ""))

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            edit_type=lambda: known_type(self._edit_type(entry)),
            image=lambda: self._image(entry, notes),
            source_prompt=lambda: prompt(entry, "original_prompt"),
            target_prompt=lambda: prompt(entry, "editing_prompt"),
            instruction=lambda: without_brackets(optional_text(entry, "editing_instruction")),
            blend_words=lambda: blend_words(entry, notes),
            mask=lambda: self._mask(entry),
        )
        name = EDIT_NAMES[int(fields["edit_type"])]
        return Case(id=case_id, edit_name=name, notes=tuple(notes), **fields)

    def _image(self, entry: Row, notes: list[str]) -> Tensor:
        return self._picture(Path(PICTURES) / relative(text(entry, "image_path")), notes)

    def _mask(self, entry: Row) -> Tensor | None:
        if entry.get("mask") is None:
            return None
        return pie_mask(entry["mask"], self.side, noisy_border=self.noisy_border)


def read_mapping(root: Path, name: str) -> tuple[list[tuple[object, object]], str]:
    """The mapping file's entries and the digest of its bytes."""
    hint = f"a folder in PIE-Bench's format has {name} and {PICTURES}/"
    mapping, digest = read_json(name, root, hint)
    if not isinstance(mapping, dict) or not mapping:
        raise DatasetError(
            f"{root / name} must hold an object {{case id: entry, …}} with some entries"
        )
    return list(cast("Mapping[object, object]", mapping).items()), digest


def relative(path: str) -> str:
    """A path that is joined to a folder must not replace it."""
    if Path(path).is_absolute():
        raise CaseError(f"image path {shown(path)}: it must be relative to {PICTURES}/")
    return path


def known_type(name: str) -> str:
    if name not in TYPE_IDS:
        raise CaseError(
            f"editing_type_id is {shown(name)}; it must be one of {', '.join(TYPE_IDS)}"
        )
    return name


def pie_mask(runs: Any, side: int, *, noisy_border: bool) -> Tensor:
    """[1, side, side] from run lengths over 512 x 512 pixels."""
    mask = decode_rle(runs, MASK_SIDE, MASK_SIDE)
    return resize_mask(with_border(mask) if noisy_border else mask, side)


def prompt(entry: Row, field: str) -> str:
    """PIE-Bench puts what differs between its prompts in square brackets."""
    words = without_brackets(text(entry, field))
    if not words:
        raise CaseError(f"{field} is {shown(entry[field])}; nothing is left of it without brackets")
    return words


def without_brackets(words: str) -> str:
    return " ".join(words.replace("[", "").replace("]", "").split())


def blend_words(entry: Row, notes: list[str]) -> tuple[str, str] | None:
    words = without_brackets(optional_text(entry, "blended_word")).split()
    if not words:
        return None
    if len(words) != 2:
        notes.append(f"blended_word has {len(words)} words, not 2: it was not used")
        return None
    return words[0], words[1]
