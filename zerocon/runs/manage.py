"""Select runs by state and settings, remove them, export them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.ledger.run_directory import ORIGIN, RunDirectory
from zerocon.ledger.status import Status
from zerocon.reports.runs import Run, check_field, find_runs

_TYPES = {"schema": "INTEGER", "seconds": "DOUBLE", "notes": "VARCHAR[]"}
COLUMNS = {"run": "VARCHAR"} | {
    item.name: _TYPES.get(item.name, "VARCHAR") for item in fields(Record) if item.name != "metrics"
}


def choose(
    root: str | Path, *, state: str | None = None, where: Sequence[str] = ()
) -> list[tuple[Run, Status]]:
    """The runs below `root` in that state and with those settings, as `field=value`."""
    runs = find_runs([root])
    for condition in where:
        field, equals, value = condition.partition("=")
        if not equals:
            raise ConfigError(f"--where {condition!r} must be like method.steps=50")
        check_field(runs, field)
        runs = [run for run in runs if run.field(field) == value]
    found = [(run, RunDirectory(run.directory).status()) for run in runs]
    return [(run, status) for run, status in found if state in (None, status.state)]


def remove(directory: Path) -> None:
    """Delete a run, its origin first, so that an interrupted removal leaves no broken run."""
    (directory / ORIGIN).unlink()
    shutil.rmtree(directory)


def export(directories: Sequence[Path], out: Path) -> int:
    """Write the runs' records to one Parquet file, a column per metric; return the row count."""
    import duckdb

    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as scratch, duckdb.connect() as connection:
        lines, partial = Path(scratch) / "rows.jsonl", Path(scratch) / "rows.parquet"
        count, metrics = _write_lines(directories, lines)
        if not count:
            raise ConfigError("there are no records to export")
        columns = json.dumps(COLUMNS | dict.fromkeys(metrics, "DOUBLE"))
        source = f"read_json({_text(lines)}, columns = {columns}, format = 'newline_delimited')"
        query = f"COPY (SELECT * FROM {source}) TO {_text(partial)} (FORMAT parquet)"  # noqa: S608
        connection.execute(query)  # all values in it are quoted
        partial.replace(out)
    return count


def _write_lines(directories: Sequence[Path], file: Path) -> tuple[int, list[str]]:
    """Every run's last records as flat lines: how many, and the metrics' columns."""
    count, metrics = 0, dict[str, None]()
    with file.open("wb") as lines:
        for directory in directories:
            for record in RunDirectory(directory).records():
                row = json.loads(record.to_line()) | {"run": directory.name}
                measured = {f"metric_{name}": value for name, value in row.pop("metrics").items()}
                metrics |= dict.fromkeys(measured)
                lines.write(json.dumps(row | measured).encode() + b"\n")
                count += 1
    return count, list(metrics)


def _text(path: Path) -> str:
    """The path as a quoted SQL string."""
    return "'" + str(path).replace("'", "''") + "'"
