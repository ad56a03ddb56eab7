"""Read lists in CSV files."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class CsvError(ValueError):
    """The file is not a list with the required columns. The message follows the file's name."""


def read_csv(data: bytes, needed: Sequence[str]) -> list[Mapping[Any, Any]]:
    """The rows by column; the key None holds surplus fields."""
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CsvError(f"is not text in UTF-8: {error}") from error
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        with _fields_up_to(len(content)):
            _check_columns(reader.fieldnames or (), needed)
            return list(reader)
    except csv.Error as error:
        raise CsvError(f"is not valid CSV after line {reader.line_num}: {error}") from error


def _check_columns(columns: Sequence[str], needed: Sequence[str]) -> None:
    for column in needed:
        if column not in columns:
            raise CsvError(f"has no column {column!r}")
    for column, times in Counter(columns).items():
        if times > 1 and column.strip():
            raise CsvError(f"has {times} columns called {column!r}; names must be unique")


@contextmanager
def _fields_up_to(length: int) -> Generator[None]:
    """Raise the csv module's limit of 131,072 characters per field."""
    before = csv.field_size_limit(max(length, 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
