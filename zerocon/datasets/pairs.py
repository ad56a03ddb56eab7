"""Pictures of one's own with their prompts, listed in a CSV, JSON Lines or Parquet file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

from zerocon.core.cases import Case, CaseError, DatasetError
from zerocon.datasets.base import (
    Broken,
    Choice,
    FileDataset,
    Row,
    free_type,
    gather,
    listed,
    optional_text,
    read_bytes,
    text,
)
from zerocon.datasets.images import (
    inside,
    light_mask,
    mask_tensor,
    open_mask,
    open_picture,
    picture_tensor,
    read_image,
)

NEEDED = ("image", "source", "target")
OPTIONAL = ("id", "mask", "ground_truth", "instruction", "edit_type")
HINT = f"it has the columns {', '.join(NEEDED)} and may have {', '.join(OPTIONAL)}"


class Pairs(FileDataset):
    """A case for each line of `file` (.csv, .jsonl or .parquet) in `root`.

    Columns needed: `image` (a path below `root`), `source` and `target` (prompts). May lack or
    be empty: `id` (else the picture's path without its suffix), `mask` (a picture's path, light
    where the edit belongs, of the picture's shape), `ground_truth` (a picture's path),
    `instruction`, `edit_type` (any text). A line that can't be read is a failed case.
    """

    name = "pairs"
    type_names = None

    def __init__(
        self,
        root: str | Path,
        side: int,
        *,
        file: str = "pairs.csv",
        **chosen: Unpack[Choice],
    ) -> None:
        rows, digest = read_rows(file, Path(root), NEEDED, OPTIONAL, HINT)
        entries = [(_id(row, place), row) for place, row in enumerate(rows)]
        super().__init__(root, side, Path(root) / file, listed(entries), digest, **chosen)

    def source_path(self, case_id: str) -> str | None:
        return text(self.entry(case_id), "image")

    def _edit_type(self, entry: Row) -> str:
        return free_type(entry)

    def _case(self, case_id: str, entry: Row) -> Case:
        notes: list[str] = []
        fields = gather(
            pictures=lambda: self._pictures(entry, notes),
            source_prompt=lambda: text(entry, "source").strip(),
            target_prompt=lambda: text(entry, "target").strip(),
            instruction=lambda: optional_text(entry, "instruction").strip(),
            ground_truth=lambda: self._ground_truth(entry),
        )
        kind = self._edit_type(entry)
        pictures = fields.pop("pictures")
        return Case(
            id=case_id, edit_type=kind, edit_name=kind, notes=tuple(notes), **pictures, **fields
        )

    def _pictures(self, entry: Row, notes: list[str]) -> dict[str, Any]:
        picture, more = open_picture(text(entry, "image"), self.root)
        notes.extend(more)
        found: dict[str, Any] = {"image": picture_tensor(picture, self.side)}
        if optional_text(entry, "mask"):
            mask = light_mask(open_mask(text(entry, "mask"), self.root))
            found["mask"] = mask_tensor(mask, self.side, picture)
        return found

    def _ground_truth(self, entry: Row) -> Any:
        path = optional_text(entry, "ground_truth")
        return read_image(path, self.root, self.side)[0] if path else None


def _id(row: Row | Broken, place: int) -> object:
    """The id it has, or the picture's path without its suffix."""
    if isinstance(row, Broken):
        return f"line {place + 1}"
    given = row.get("id")
    if given not in (None, ""):
        return given
    image = row.get("image")
    return Path(image).with_suffix("").as_posix() if isinstance(image, str) and image else None


def read_rows(
    name: str, root: Path, needed: Sequence[str], optional: Sequence[str], hint: str
) -> tuple[list[Row | Broken], str]:
    """The lines of a CSV, JSON Lines or Parquet file in `root`, and a digest of all they say."""
    readers = {".csv": _from_csv, ".jsonl": _from_jsonl}
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        return _from_parquet(name, root, needed, optional)
    if suffix not in readers:
        raise DatasetError(f"file is {name!r}; it must end in .csv, .jsonl or .parquet")
    data = read_bytes(name, root, hint)
    try:
        rows = readers[suffix](data.decode("utf-8-sig"), needed)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{root / name} can't be read: {error}; it must be UTF-8 text"
        ) from error
    except CaseError as error:
        raise DatasetError(f"{root / name} {error}; {hint}") from error
    if not rows:
        raise DatasetError(f"{root / name} has no lines; {hint}")
    return rows, hashlib.sha256(data).hexdigest()


def _from_csv(content: str, needed: Sequence[str]) -> list[Row | Broken]:
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    missing = [column for column in needed if column not in (reader.fieldnames or ())]
    if missing:
        raise CaseError(f"has no column {missing[0]!r}")
    return [_line_of_csv(row) for row in reader]


def _line_of_csv(row: Mapping[Any, Any]) -> Row | Broken:
    if None in row:
        return Broken("has more fields than the header; put texts with commas into quotes")
    if None in row.values():
        return Broken("has fewer fields than the header")
    return dict(row)


def _from_jsonl(content: str, needed: Sequence[str]) -> list[Row | Broken]:
    return [_line_of_jsonl(line) for line in content.split("\n") if line.strip()]


def _line_of_jsonl(line: str) -> Row | Broken:
    try:
        entry: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Broken(f"is not valid JSON: {error}")
    if not isinstance(entry, dict):
        return Broken("is not a JSON object")
    return cast("Row", entry)


def _from_parquet(
    name: str, root: Path, needed: Sequence[str], optional: Sequence[str]
) -> tuple[list[Row | Broken], str]:
    # Imported late: most lists are text, and the database takes a moment to load.
    from zerocon.datasets.parquet import PictureTable

    try:
        file = inside(name, root)
    except CaseError as error:
        raise DatasetError(str(error).replace("image path", "path", 1)) from error
    if not file.is_file():
        raise DatasetError(f"{root / name} can't be read (No such file or directory); {HINT}")
    table = PictureTable([root / name], needed, optional, ())
    if not table.rows:
        raise DatasetError(f"{root / name} has no lines")
    return [*table.rows], table.digest()
