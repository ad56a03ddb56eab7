"""Your own pictures and prompts, listed in a CSV, JSON Lines or Parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, cast

from zerocon.core.cases import Case, CaseError, DatasetError, DatasetMissingError, World
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
    parse_json,
    read_bytes,
    text,
)
from zerocon.datasets.csv_lists import CsvError, read_csv
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
KINDS = (".csv", ".jsonl", ".parquet")


class Pairs(FileDataset):
    """A case for each line of `file` (.csv, .jsonl or .parquet) in `root`.

    Required columns: `image` (a path below `root`), `source` and `target` (prompts). Optional:
    `id` (default: the picture's path without its suffix), `mask` (the path of a picture of the
    same shape, light in the edited region), `ground_truth` (a picture's path), `instruction`,
    `edit_type` (any text). An unreadable line is a failed case.
    `world`: what the pictures show.
    """

    name = "pairs"
    type_names = None

    def __init__(
        self,
        root: str | Path,
        pixels: Size,
        *,
        file: str = "pairs.csv",
        world: World = "photographs",
        **chosen: Unpack[Choice],
    ) -> None:
        self.world = world
        rows = read_rows(file, Path(root), NEEDED, OPTIONAL, HINT)
        entries = [(_id(row, place), row) for place, row in enumerate(rows)]
        super().__init__(root, pixels, Path(root) / file, listed(entries), **chosen)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        super().check_settings(settings)
        check_list_name("file", settings.get("file", "pairs.csv"))

    def source_path(self, case_id: str) -> str | None:
        return text(self.entry(case_id), "image")

    def _edit_type(self, entry: Row) -> str:
        return free_type(entry)

    def _files(self, entry: Row) -> Mapping[str, str | Path]:
        files = {"picture": text(entry, "image")}
        others = {"mask": "mask", "ground truth": "ground_truth"}
        paths = {part: optional_text(entry, column) for part, column in others.items()}
        return files | {part: path for part, path in paths.items() if path}

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
        found: dict[str, Any] = {"image": picture_tensor(picture, self.pixels)}
        if optional_text(entry, "mask"):
            mask = light_mask(open_mask(text(entry, "mask"), self.root))
            found["mask"] = mask_tensor(mask, self.pixels, picture)
        return found

    def _ground_truth(self, entry: Row) -> Any:
        path = optional_text(entry, "ground_truth")
        return read_image(path, self.root, self.pixels)[0] if path else None


def _id(row: Row | Broken, place: int) -> object:
    """The row's id, or the picture's path without its suffix."""
    if isinstance(row, Broken):
        return f"line {place + 1}"
    given = row.get("id")
    if given not in (None, ""):
        return given
    image = row.get("image")
    return Path(image).with_suffix("").as_posix() if isinstance(image, str) and image else None


def check_list_name(setting: str, name: str) -> None:
    """Raise DatasetError for a list in an unknown format."""
    if Path(name).suffix.lower() not in KINDS:
        raise DatasetError(f"{setting} is {shown(name)}; it must end in .csv, .jsonl or .parquet")


def read_rows(
    name: str, root: Path, needed: Sequence[str], optional: Sequence[str], hint: str
) -> list[Row | Broken]:
    """The lines of a CSV, JSON Lines or Parquet file in `root`."""
    check_list_name("file", name)
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        return _from_parquet(name, root, needed, optional)
    data = read_bytes(name, root, hint)
    try:
        rows = _from_csv(data, needed) if suffix == ".csv" else _from_jsonl(data)
    except CsvError as error:
        raise DatasetError(f"{root / name} {error}; {hint}") from error
    if not rows:
        raise DatasetError(f"{root / name} has no lines; {hint}")
    return rows


def _from_csv(data: bytes, needed: Sequence[str]) -> list[Row | Broken]:
    return [_line_of_csv(row) for row in read_csv(data, needed)]


def _line_of_csv(row: Mapping[Any, Any]) -> Row | Broken:
    if None in row:
        return Broken("has more fields than the header; put texts with commas into quotes")
    if None in row.values():
        return Broken("has fewer fields than the header")
    return dict(row)


def _from_jsonl(data: bytes) -> list[Row | Broken]:
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [_line_of_jsonl(line) for line in lines if line.strip()]


def _line_of_jsonl(line: bytes) -> Row | Broken:
    try:
        entry: object = parse_json(line.decode())
    except (ValueError, RecursionError) as error:
        return Broken(f"is not valid JSON: {error}")
    if not isinstance(entry, dict):
        return Broken("is not a JSON object")
    return cast("Row", entry)


def _from_parquet(
    name: str, root: Path, needed: Sequence[str], optional: Sequence[str]
) -> list[Row | Broken]:
    # Imported late: most lists are text, and DuckDB loads slowly.
    from zerocon.datasets.parquet import PictureTable

    try:
        file = inside(name, root)
    except CaseError as error:
        raise DatasetError(str(error).replace("image path", "path", 1)) from error
    if not file.exists():
        raise DatasetMissingError(f"{root / name} can't be read (there is no such file); {HINT}")
    table = PictureTable([root / name], needed, optional, ())
    if not table.rows:
        raise DatasetError(f"{root / name} has no lines")
    return [*table.rows]
