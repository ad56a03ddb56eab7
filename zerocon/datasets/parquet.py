"""Tables as the Hugging Face hub keeps them: Parquet files with pictures in their cells.

Listing a table reads its text columns only. Pictures are read a few rows at a time.
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

AHEAD = 16  # rows whose pictures are read together: finding one costs as much as finding some
SETTINGS = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": "2GB",
    "temp_directory": "",  # nothing is ever written
}


@dataclass(frozen=True)
class Place:
    """Where a row is."""

    file: Path
    row: int


class PictureTable:
    """Rows of Parquet files: texts at once, pictures when they are asked for.

    `needed` columns must be in every file, `optional` ones are None where they are not.
    `pictures` are binary, or structs of `bytes` and `path` (the hub's own); those not in `needed`
    may be missing.
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
        """The file that a row is in, as a path below `root`."""
        return entry["place"].file.relative_to(root)

    def picture(self, entry: Row, column: str) -> bytes | None:
        """The bytes in a cell; None for an empty one, or where there is no such column."""
        place: Place = entry["place"]
        if column not in self._columns[place.file]:
            return None
        return _bytes(self._cells(place)[column], column)

    def _cells(self, place: Place) -> Mapping[str, Any]:
        if place not in self._window:
            self._window = self._read(place, AHEAD)
        if place not in self._window:
            raise CaseError(f"{place.file.name} has no row {place.row} any more: it was replaced")
        return self._window[place]

    def _read(self, place: Place, count: int) -> dict[Place, Mapping[str, Any]]:
        """Some rows' pictures; only this row's where the file is damaged nearby."""
        columns = [c for c in self.pictures if c in self._columns[place.file]]
        try:
            found = _select(place.file, columns, place.row, place.row + count)
        except duckdb.Error as error:
            if count > 1:
                return self._read(place, 1)
            raise CaseError(f"{place.file.name}, row {place.row}: {_short(error)}") from error
        return {Place(place.file, row["row"]): row for row in found}


def parquet_files(root: Path, hint: str) -> list[Path]:
    """Every Parquet file below `root`, by name; hidden folders (caches) are left out."""
    if not root.is_dir():
        raise DatasetMissingError(f"{root} is no folder; {hint}")
    names = sorted(p.relative_to(root) for p in root.rglob("*.parquet"))
    names = [n for n in names if not any(part.startswith(".") for part in n.parts)]
    if not names:
        raise DatasetMissingError(f"{root} holds no .parquet file; {hint}")
    for name in names:
        with _for_all():
            inside(name, root)
    return [root / name for name in names]


def of_split(files: Sequence[Path], root: Path, split: str) -> list[Path]:
    """Those of one split: `data/dev-00000-of-00004.parquet`, or `dev/0000.parquet`."""
    chosen = [f for f in files if f.name.startswith(f"{split}-") or f.parent.name == split]
    if not chosen:
        names = ", ".join(str(f.relative_to(root)) for f in files[:5])
        raise DatasetError(f"split {split!r}: no file in {root} is of it; there are {names}")
    return chosen


@contextmanager
def _for_all() -> Generator[None]:
    """An error of a single path is one of the whole dataset here: every case is in these files."""
    try:
        yield
    except CaseError as error:
        raise DatasetError(str(error).replace("image path", "path", 1)) from error


def _columns(file: Path, needed: Sequence[str]) -> dict[str, str]:
    """The file's columns and their types."""
    try:
        open_regular(file).close()  # the database would wait for a pipe
    except OSError as error:
        raise DatasetMissingError(f"{file} can't be read ({error.strerror})") from error
    with contextlib.closing(_connection()) as database:
        try:
            described = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [_name(file)])
            types = {str(row[0]): str(row[1]) for row in described.fetchall()}
        except duckdb.Error as error:
            raise DatasetError(f"{file} is no whole Parquet file: {_short(error)}") from error
    missing = [column for column in needed if column not in types]
    if missing:
        raise DatasetError(
            f"{file} has no column {missing[0]!r}; needed are {', '.join(needed)}, there are "
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
    """The rows from `first` to before `end`, each a dict with its own number as "row"."""
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
    """DuckDB reads patterns; a file whose name has a star is one file."""
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
