"""The TI2I benchmarks of Plug-and-Play, with their own lists or PnP Inversion's mapping file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Unpack, cast

import yaml
from torch import Tensor

from zerocon.core.cases import Case, CaseError, DatasetError, DatasetMissingError
from zerocon.core.checks import shown
from zerocon.core.size import Size
from zerocon.datasets.base import (
    Broken,
    Choice,
    FileDataset,
    Row,
    gather,
    listed,
    optional_text,
    read_bytes,
    text,
)
from zerocon.datasets.images import inside
from zerocon.datasets.pie_bench import (
    PICTURES,
    Protocol,
    Reading,
    blend_words,
    pie_mask,
    prompt,
    read_mapping,
    without_brackets,
)

KNOWN_FILES = (
    "mapping_file_ti2i_benchmark.json",
    "imnetr-ti2i.yaml",
    "wild-ti2i-real.yaml",
)
# In ImageNet-R-TI2I's published list, entry 25 of 30 lacks its picture.
LEFT_OUT, LEFT_OUT_PLACE, ENTRIES = "/ImageNetR-TI2I/panda/cartoon_30.jpg", 24, 30
LEFT_OUT_PROMPT = "a cartoon of a panda"
HINT = f"a TI2I folder has one of {', '.join(KNOWN_FILES)}, or name your `file`"


class TI2I(FileDataset):
    """ImageNet-R-TI2I and Wild-TI2I, also in PnP Inversion's format.

    A YAML `file` is a list of `{init_img, source_prompt, target_prompts: [...]}`; each target
    prompt is a case, `<entry>-<picture>-<number>`. `source_prompt` may be missing, as in most
    entries of the published files. `init_img` is relative to the folder above
    (`/ImageNetR-TI2I/cat/sketch_20.jpg`): the picture is searched below `root` with and without
    the first folder, ignoring case, and in `data/`. The one entry of the published list without
    `init_img` is completed, with a note.
    A JSON `file` is a mapping file like PIE-Bench's, but source prompts and masks may be empty;
    `protocol` applies to its masks as in PIE-Bench.
    `file: null` uses the published file that exists.
    """

    name = "ti2i"

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        *,
        file: str | None = None,
        protocol: Protocol = "masked",
        **chosen: Unpack[Choice],
    ) -> None:
        root = Path(root)
        name = _the_file(root) if file is None else file
        self.squares = self._mapping = name.endswith(".json")
        self.reading = Reading(noisy_border=True, published=protocol == "published")
        entries = read_mapping(root, name) if self._mapping else _from_yaml(root, name)
        settings = [self.reading.said(), self._mapping]
        super().__init__(root, pixels, root / name, listed(entries), settings, **chosen)

    def source_path(self, case_id: str) -> str | None:
        entry = self.entry(case_id)
        return text(entry, "image_path" if self._mapping else "init_img").lstrip("/")

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        return {"picture": self._place_of(entry)}

    def _texts(self, entry: Row) -> Any:
        """For YAML only texts in known fields: aliases can make other values infinite."""
        if self._mapping:
            return super()._texts(entry)
        used = (entry.get(name) for name in ("init_img", "source_prompt", "target_prompt"))
        return [value if isinstance(value, str) else shown(value) for value in used]

    def _place_of(self, entry: Row) -> Path:
        if self._mapping:
            return Path(PICTURES) / text(entry, "image_path")
        return _place(text(entry, "init_img"), self.root)

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(**(self._json_parts if self._mapping else self._yaml_parts)(entry, notes))
        if not fields["source_prompt"]:
            notes.append("there is no source prompt")
        return Case(id=case_id, notes=tuple(notes), **fields)

    def _yaml_parts(self, entry: Row, notes: list[str]) -> dict[str, Any]:
        return {
            "image": lambda: self._yaml_picture(entry, notes),
            "source_prompt": lambda: optional_text(entry, "source_prompt").strip(),
            "target_prompt": lambda: text(entry, "target_prompt").strip(),
        }

    def _json_parts(self, entry: Row, notes: list[str]) -> dict[str, Any]:
        return {
            "image": lambda: self._picture(self._place_of(entry), notes),
            "source_prompt": lambda: without_brackets(optional_text(entry, "original_prompt")),
            "target_prompt": lambda: prompt(entry, "editing_prompt"),
            "instruction": lambda: without_brackets(optional_text(entry, "editing_instruction")),
            "blend_words": lambda: blend_words(entry, notes),
            "mask": lambda: self._mask(entry, notes),
        }

    def _yaml_picture(self, entry: Row, notes: list[str]) -> Tensor:
        if "left_out" in entry:
            notes.append(f"the list names no picture; used {entry['init_img']}")
        return self._picture(self._place_of(entry), notes)

    def _mask(self, entry: Row, notes: list[str]) -> Tensor | None:
        """The mask; an empty list means there is none."""
        if not entry.get("mask"):
            return None
        return pie_mask(entry["mask"], self.pixels, self.reading, notes)


def _the_file(root: Path) -> str:
    found = [name for name in KNOWN_FILES if (root / name).is_file()]
    if not found:
        raise DatasetMissingError(f"{root}: {HINT}")
    return found[0]


def _from_yaml(root: Path, name: str) -> list[tuple[object, object]]:
    """(case id, entry) for each target prompt of each picture."""
    data = read_bytes(name, root, HINT)
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"{root / name} is not valid YAML: {reason}") from error
    if not isinstance(content, list) or not content:
        raise DatasetError(f"{root / name} must contain a list of {{init_img, target_prompts}}")
    entries = _completed(cast("list[object]", content))
    return [case for place, entry in enumerate(entries) for case in _cases_of(place, entry)]


def _completed(entries: list[object]) -> list[object]:
    """The entries, with the missing picture of the published list added."""
    return [_with_picture(place, entry, len(entries)) for place, entry in enumerate(entries)]


def _with_picture(place: int, entry: object, entries: int) -> object:
    if not isinstance(entry, dict) or "init_img" in entry:
        return cast("object", entry)
    fields = cast("dict[str, Any]", entry)
    prompt = fields.get("source_prompt")
    in_its_place = prompt is None and (place, entries) == (LEFT_OUT_PLACE, ENTRIES)
    if prompt != LEFT_OUT_PROMPT and not in_its_place:
        return fields
    return {**fields, "init_img": LEFT_OUT, "left_out": True}


def _cases_of(place: int, entry: object) -> Iterator[tuple[object, object]]:
    if not isinstance(entry, dict):
        yield f"{place:03d}", entry
        return
    fields = cast("Mapping[str, Any]", entry)
    name = f"{place:03d}-{PurePosixPath(str(fields.get('init_img'))).stem}"
    targets = fields.get("target_prompts")
    if not isinstance(targets, list) or not targets:
        yield name, Broken(f"has the target_prompts {shown(targets)}; expected a list of texts")
        return
    for number, target in enumerate(cast("list[object]", targets)):
        yield f"{name}-{number}", {**fields, "target_prompt": target}


def _place(written: str, root: Path) -> Path:
    """The path below `root` of a picture whose path starts in the folder above."""
    parts = [part for part in PurePosixPath(written).parts if part != "/"]
    if ".." in parts:
        raise CaseError(
            f"init_img is {shown(written)}; it leads out of the dataset's folder {root}"
        )
    for candidate in (parts, parts[1:], ["data", *parts[-1:]]):
        found = _in_any_case(candidate, root)
        if found is not None:
            return found
    raise CaseError(f"init_img is {shown(written)}; there is no such picture below {root}")


def _in_any_case(parts: Sequence[str], root: Path) -> Path | None:
    """The path on disk, ignoring case: the published list's capitals differ from the files'."""
    place = Path()
    for part in parts:
        folder = inside(place, root)
        names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        alike = [name for name in names if name.lower() == part.lower()]
        if not alike:
            return None
        place /= part if part in alike else alike[0]
    return place if parts else None
