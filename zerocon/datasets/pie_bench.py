"""PIE-Bench's published format: a mapping file, pictures by edit type, run-length masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError, World
from zerocon.core.checks import shown
from zerocon.core.size import Size
from zerocon.datasets.base import (
    Choice,
    FileDataset,
    Listing,
    Row,
    gather,
    listed,
    optional_text,
    read_bytes,
    read_json,
    text,
)
from zerocon.datasets.images import decode_rle, resize_mask, runs_beyond, with_border

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
MASK_SIDE = 512  # pixels of the masks, independent of the picture's size
MAPPING_FILE = "mapping_file.json"
PICTURES = "annotation_images"

Protocol = Literal["masked", "published"]


@dataclass(frozen=True)
class Reading:
    """How to read PIE-Bench's entries; `published`: accept what PIE-Bench's code accepts."""

    noisy_border: bool = True
    published: bool = False

    def said(self) -> list[bool]:
        return list(astuple(self))


class PieBench(FileDataset):
    """The cases of a folder in PIE-Bench's format, in the mapping file's order.

    `edit_types` (ids, "0" to "9") and `ids` choose cases, `subset` draws that many of them at
    random (`subset_seed`), and `limit` keeps the first ones.
    `noisy_border` applies PIE-Bench's rule for the masks' outermost pixels.
    `protocol`: with "published", as in the published code, mask runs that end beyond the picture
    are cut off and the source prompt may be empty; the record notes it. Otherwise such cases
    fail.
    """

    name = "pie_bench"
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
        listing = listed(read_mapping(Path(root), MAPPING_FILE))
        where = Path(root) / MAPPING_FILE
        super().__init__(root, pixels, where, listing, [self.reading.said()], **chosen)
        if _has_scenes(listing):
            self.world = "shapes"  # ShapesPIE, written in this format

    @classmethod
    def world_of(cls, root: str | Path, **_: object) -> World:
        """The world of the dataset in a folder, without opening the dataset; as `_has_scenes`."""
        try:
            data = read_bytes(MAPPING_FILE, Path(root), "")
        except DatasetError:
            return cls.world  # opening the dataset will raise the error
        return "shapes" if b'"source_scene"' in data else cls.world

    def source_path(self, case_id: str) -> str | None:
        return text(self.entry(case_id), "image_path")

    def _edit_type(self, entry: Row) -> str:
        return str(entry.get("editing_type_id", ""))

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {"picture": Path(PICTURES) / relative(text(entry, "image_path"))}

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            edit_type=lambda: known_type(self._edit_type(entry)),
            image=lambda: self._image(entry, notes),
            source_prompt=lambda: source_prompt(entry, "original_prompt", self.reading, notes),
            target_prompt=lambda: prompt(entry, "editing_prompt"),
            instruction=lambda: without_brackets(optional_text(entry, "editing_instruction")),
            blend_words=lambda: blend_words(entry, notes),
            mask=lambda: self._mask(entry, notes),
        )
        name = EDIT_NAMES[int(fields["edit_type"])]
        return Case(id=case_id, edit_name=name, notes=tuple(notes), **fields)

    def _image(self, entry: Row, notes: list[str]) -> Tensor:
        return self._picture(Path(PICTURES) / relative(text(entry, "image_path")), notes)

    def _mask(self, entry: Row, notes: list[str]) -> Tensor | None:
        if entry.get("mask") is None:
            return None
        return pie_mask(entry["mask"], self.pixels, self.reading, notes)


def _has_scenes(listing: Listing) -> bool:
    """Whether an entry describes a scene of the shapes world."""
    return any(isinstance(entry, Mapping) and "source_scene" in entry for entry in listing.values())


def read_mapping(root: Path, name: str) -> list[tuple[object, object]]:
    """The mapping file's entries."""
    hint = f"a folder in PIE-Bench's format has {name} and {PICTURES}/"
    mapping = read_json(name, root, hint)
    if not isinstance(mapping, dict) or not mapping:
        raise DatasetError(f"{root / name} must contain a non-empty object {{case id: entry, …}}")
    return list(cast("Mapping[object, object]", mapping).items())


def relative(path: str) -> str:
    """Refuse an absolute path, which would replace the folder it is joined to."""
    if Path(path).is_absolute():
        raise CaseError(f"image path {shown(path)}: it must be relative to {PICTURES}/")
    return path


def known_type(name: str) -> str:
    if name not in TYPE_IDS:
        raise CaseError(
            f"editing_type_id is {shown(name)}; it must be one of {', '.join(TYPE_IDS)}"
        )
    return name


def pie_mask(runs: Any, pixels: Size, reading: Reading, notes: list[str]) -> Tensor:
    """[1, y, x] from run lengths over 512 x 512 pixels."""
    mask = decode_rle(runs, MASK_SIDE, MASK_SIDE, cut=reading.published)
    beyond = runs_beyond(runs, MASK_SIDE**2)
    if beyond:
        notes.append(f"{beyond} of the mask's runs end beyond the picture: cut off, as published")
    return resize_mask(with_border(mask) if reading.noisy_border else mask, pixels)


def source_prompt(entry: Row, field: str, reading: Reading, notes: list[str]) -> str:
    """The source prompt; with the published protocol it may be empty, but not missing."""
    given = entry.get(field)
    if reading.published and isinstance(given, str) and not without_brackets(given):
        notes.append("the source prompt is empty, as published")
        return ""
    return prompt(entry, field)


def prompt(entry: Row, field: str) -> str:
    """A prompt without the square brackets in which PIE-Bench marks the differing words."""
    words = without_brackets(text(entry, field))
    if not words:
        raise CaseError(f"{field} is {shown(entry[field])}; it is empty without brackets")
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
