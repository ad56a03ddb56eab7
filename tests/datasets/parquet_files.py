"""Parquet files as the Hugging Face hub has them: pictures in structs of bytes and path."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
from PIL import Image

PICTURE = "STRUCT(bytes BLOB, path VARCHAR)"


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


def cell(picture: Image.Image | None, name: str = "a.png") -> dict[str, Any] | None:
    return None if picture is None else {"bytes": encoded(picture), "path": name}


def write_parquet(
    file: Path, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> Path:
    """`columns`: name -> type, as DuckDB writes it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    named = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    marks = ", ".join("?" for _ in columns)
    with duckdb.connect(":memory:") as database:
        database.execute(f"CREATE TABLE t ({named})")
        for row in rows:
            values = [row.get(name) for name in columns]
            database.execute(f"INSERT INTO t VALUES ({marks})", values)  # noqa: S608
        database.execute(f"COPY t TO '{file}' (FORMAT parquet)")
    return file
