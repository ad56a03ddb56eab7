"""Tables in the Hugging Face hub's format: Parquet files with pictures in their cells.

Listing a table reads only its text columns. Pictures are read a few rows at a time.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import duckdb

from zerocon.core.cases import CaseError, DatasetError, DatasetMissingError
from zerocon.core.files import open_regular
from zerocon.datasets.base import Row
from zerocon.datasets.images import inside

AHEAD = 16  # rows whose pictures are read together: finding one costs as much as several
SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": "2GB",
    "temp_directory": "",  # write nothing
}


@dataclass(frozen=True)
class Place:
    """A row's file and number."""

    file: Path
    row: int


class PictureTable:
    """Rows of Parquet files: texts are read at once, pictures on demand.

    `needed` columns must be in every file; missing `optional` ones are None. `pictures` are
    binary, or the hub's structs of `bytes` and `path`; those not in `needed` may be missing.
    """

    def __init__(
        self,
        files: Sequence[Path],
        needed: Sequence[str],
        optional: Sequence[str],
        pictures: Sequence[str],
    ) -> None:
        self.pictures = tuple(pictures)
        self._columns = {file: _columns(file, [*needed]) for file in files}
        self.rows: list[Row] = []
        texts = [c for c in (*needed, *optional) if c not in pictures]
        for file in files:
            self.rows.extend(_texts(file, [c for c in texts if c in self._columns[file]]))
        self._window: dict[Place, Mapping[str, Any]] = {}

    def place(self, entry: Row, root: Path) -> Path:
        """The row's file, as a path below `root`."""
        return entry["place"].file.relative_to(root)

    def picture(self, entry: Row, column: str) -> bytes | None:
        """The bytes in a cell; None if the cell is empty or the column is missing."""
        place: Place = entry["place"]
        if column not in self._columns[place.file]:
            return None
        return _bytes(self._cells(place)[column], column)

    def _cells(self, place: Place) -> Mapping[str, Any]:
        if place not in self._window:
            self._window = self._read(place, AHEAD)
        if place not in self._window:
            raise CaseError(
                f"{place.file.name} no longer has row {place.row}: the file was replaced"
            )
        return self._window[place]

    def _read(self, place: Place, count: int) -> dict[Place, Mapping[str, Any]]:
        """Pictures of several rows; only of this row if the file is damaged nearby."""
        columns = [c for c in self.pictures if c in self._columns[place.file]]
        try:
            found = _select(place.file, columns, place.row, place.row + count)
        except duckdb.Error as error:
            if count > 1:
                return self._read(place, 1)
            raise CaseError(f"{place.file.name}, row {place.row}: {_short(error)}") from error
        return {Place(place.file, row["row"]): row for row in found}


def parquet_files(root: Path, hint: str) -> list[Path]:
    """All Parquet files below `root`, by name, except in hidden folders (caches)."""
    if not root.is_dir():
        raise DatasetMissingError(f"{root} is not a folder; {hint}")
    names = sorted(p.relative_to(root) for p in root.rglob("*.parquet"))
    names = [n for n in names if not any(part.startswith(".") for part in n.parts)]
    if not names:
        raise DatasetMissingError(f"{root} contains no .parquet file; {hint}")
    for name in names:
        with _for_all():
            inside(name, root)
    return [root / name for name in names]


def of_split(files: Sequence[Path], root: Path, split: str) -> list[Path]:
    """The files of a split: `data/dev-00000-of-00004.parquet`, or `dev/0000.parquet`."""
    chosen = [f for f in files if f.name.startswith(f"{split}-") or f.parent.name == split]
    if not chosen:
        names = ", ".join(str(f.relative_to(root)) for f in files[:5])
        raise DatasetError(f"split {split!r}: no file in {root} belongs to it; there are {names}")
    return chosen


@contextmanager
def _for_all() -> Generator[None]:
    """Turn a path's CaseError into a DatasetError: all cases are in these files."""
    try:
        yield
    except CaseError as error:
        raise DatasetError(str(error).replace("image path", "path", 1)) from error


def _columns(file: Path, needed: Sequence[str]) -> dict[str, str]:
    """The file's columns and their types."""
    try:
        open_regular(file).close()  # DuckDB would block on a pipe
    except OSError as error:
        raise DatasetMissingError(f"{file} can't be read ({error.strerror})") from error
    with contextlib.closing(_connection()) as database:
        try:
            described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [_name(file)])
            types = {str(row[0]): str(row[1]) for row in described.fetchall()}
        except duckdb.Error as error:
            raise DatasetError(f"{file} is not a complete Parquet file: {_short(error)}") from error
    missing = [column for column in needed if column not in types]
    if missing:
        raise DatasetError(
            f"{file} has no column {missing[0]!r}; required: {', '.join(needed)}; found: "
            f"{', '.join(types)}"
        )
    return types


def _texts(file: Path, columns: Sequence[str]) -> list[Row]:
    try:
        rows = _select(file, columns, 0, None)
    except duckdb.Error as error:
        raise DatasetError(f"{file} can't be read: {_short(error)}") from error
    return [{**row, "place": Place(file, row["row"])} for row in rows]


def _select(
    file: Path, columns: Sequence[str], first: int, end: int | None
) -> list[dict[str, Any]]:
    """The rows from `first` up to `end` (exclusive), as dicts with the row's number as "row"."""
    names = ", ".join([*(_quoted(c) for c in columns), "file_row_number"])
    query = f"SELECT {names} FROM read_parquet(?, file_row_number=true) WHERE file_row_number >= ?"  # noqa: S608 - the names are quoted
    arguments: list[object] = [_name(file), first]
    if end is not None:
        query, arguments = f"{query} AND file_row_number < ?", [*arguments, end]
    with contextlib.closing(_connection()) as database:
        rows = database.execute(query, arguments).fetchall()
    return [dict(zip([*columns, "row"], row, strict=True)) for row in rows]


def _connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(":memory:", config=cast("Any", SETTINGS))


def _name(file: Path) -> str:
    """Escape a file's name, which DuckDB would read as a glob."""
    return glob.escape(str(file))


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _bytes(cell: object, column: str) -> bytes | None:
    if isinstance(cell, Mapping):
        cell = cast("Mapping[str, object]", cell).get("bytes")
    if cell is None:
        return None
    if not isinstance(cell, (bytes, bytearray)):
        raise CaseError(
            f"{column} is of type {type(cell).__name__}; it must hold a picture's bytes"
        )
    return bytes(cell)


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
