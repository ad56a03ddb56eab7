"""PIE-Bench, as published: a mapping file, pictures by edit type, masks as run lengths."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from zerocon.cases import Case, CaseError, DatasetError
from zerocon.datasets.images import decode_rle, read_image, resize_mask, with_border

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
MASK_SIDE = 512  # the masks' pixels, whatever the picture's
MAPPING_FILE = "mapping_file.json"

Entry = Mapping[str, Any]


class PieBench:
    """The cases of a folder in PIE-Bench's format, in the mapping file's order.

    `edit_types` (ids, "0" to "9") and `ids` choose cases, then `limit` keeps the first ones.
    `noisy_border` applies PIE-Bench's rule for the masks' outermost pixels.
    """

    name = "pie_bench"

    def __init__(
        self,
        root: str | Path,
        side: int,
        limit: int | None = None,
        *,
        edit_types: Sequence[str | int] | None = None,
        ids: Sequence[str] | None = None,
        noisy_border: bool = True,
    ) -> None:
        self.root, self.side, self.noisy_border = Path(root), side, noisy_border
        if limit is not None and limit < 1:
            raise DatasetError(f"limit is {limit}; it must be at least 1, or null for all cases")
        self._entries, digest = _mapping(self.root / MAPPING_FILE)
        types = _edit_types(edit_types)
        self._ids = self._chosen(types, ids)[:limit]
        filters = (digest, types, list(ids) if ids is not None else None, limit, noisy_border)
        self.fingerprint = hashlib.sha256(json.dumps(filters).encode()).hexdigest()[:16]

    @property
    def ids(self) -> Sequence[str]:
        return self._ids

    def load(self, case_id: str) -> Case:
        entry = self.entry(case_id)
        edit_type = _edit_type(entry)
        image, notes = read_image(
            Path("annotation_images") / _text(entry, "image_path"), self.root, self.side
        )
        blend_words, more = _blend_words(entry)
        return Case(
            id=case_id,
            image=image,
            source_prompt=_prompt(entry, "original_prompt"),
            target_prompt=_prompt(entry, "editing_prompt"),
            instruction=_without_brackets(str(entry.get("editing_instruction") or "")),
            edit_type=edit_type,
            edit_name=EDIT_NAMES[int(edit_type)],
            blend_words=blend_words,
            mask=self._mask(entry),
            notes=notes + more,
        )

    def entry(self, case_id: str) -> Entry:
        """What the mapping file says of a case."""
        entry = self._entries.get(case_id)
        if entry is None:
            raise CaseError(f"there is no case {case_id!r} in {self.root / MAPPING_FILE}")
        if not isinstance(entry, dict):
            raise CaseError(
                f"case {case_id!r} is {entry!r} in the mapping file; expected an object"
            )
        return cast("Entry", entry)

    def _mask(self, entry: Entry) -> Tensor | None:
        if entry.get("mask") is None:
            return None
        mask = decode_rle(entry["mask"], MASK_SIDE, MASK_SIDE)
        return resize_mask(with_border(mask) if self.noisy_border else mask, self.side)

    def _chosen(self, types: Sequence[str] | None, ids: Sequence[str] | None) -> list[str]:
        unknown = [i for i in ids or () if i not in self._entries]
        if unknown:
            raise DatasetError(f"ids: {self.root / MAPPING_FILE} has no case {unknown[0]!r}")
        chosen = [i for i in self._entries if ids is None or i in ids]
        if types is not None:
            chosen = [i for i in chosen if _declared_type(self._entries[i]) in types]
        if not chosen:
            raise DatasetError(f"no case of {self.root / MAPPING_FILE} is left by the filters")
        return chosen


def _mapping(file: Path) -> tuple[dict[str, object], str]:
    """The mapping file's entries and the digest of its bytes."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{file} can't be read ({error.strerror}); a folder in PIE-Bench's format has "
            f"{MAPPING_FILE} and annotation_images/"
        ) from error
    try:
        entries: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise DatasetError(f"{file} must hold an object {{case id: entry, …}} with some entries")
    return cast("dict[str, object]", entries), hashlib.sha256(data).hexdigest()


def _edit_types(chosen: Sequence[str | int] | None) -> list[str] | None:
    if chosen is None:
        return None
    names = [str(c) for c in chosen]
    for name in names:
        if name not in _TYPE_IDS:
            raise DatasetError(f"edit_types: {name!r} is none of {', '.join(_TYPE_IDS)}")
    return names


_TYPE_IDS = tuple(str(number) for number in range(len(EDIT_NAMES)))


def _declared_type(entry: object) -> str:
    if not isinstance(entry, dict):
        return ""
    return str(cast("Entry", entry).get("editing_type_id", ""))


def _edit_type(entry: Entry) -> str:
    name = _declared_type(entry)
    if name not in _TYPE_IDS:
        raise CaseError(f"editing_type_id is {name!r}; it must be one of {', '.join(_TYPE_IDS)}")
    return name


def _text(entry: Entry, field: str) -> str:
    value = entry.get(field)
    if not isinstance(value, str) or not value.strip():
        raise CaseError(f"{field} is {value!r}; it must be a text that is not empty")
    return value


def _prompt(entry: Entry, field: str) -> str:
    prompt = _without_brackets(_text(entry, field))
    if not prompt:
        raise CaseError(f"{field} is {entry[field]!r}; nothing is left of it without brackets")
    return prompt


def _without_brackets(text: str) -> str:
    return " ".join(text.replace("[", "").replace("]", "").split())


def _blend_words(entry: Entry) -> tuple[tuple[str, str] | None, tuple[str, ...]]:
    words = _without_brackets(str(entry.get("blended_word") or "")).split()
    if not words:
        return None, ()
    if len(words) != 2:
        return None, (f"blended_word has {len(words)} words, not 2: it was not used",)
    return (words[0], words[1]), ()
