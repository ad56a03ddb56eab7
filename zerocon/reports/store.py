"""The records of many runs as one DuckDB table, and queries on it.

DuckDB reads the lines. Files that it can't read, or that violate the records' format, are read
again by `records.read_records`, whose error names the line.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

import duckdb
import numpy as np
from numpy.typing import NDArray

from zerocon.core.records import SCHEMA, STATUSES, RecordError
from zerocon.ledger.records import FILE_NAME, read_records
from zerocon.reports.runs import Run, natural
from zerocon.reports.summary import Column, Group, Statistic, Summary

MOST_THREADS = 4  # more are not faster, and each takes memory

# The fields of a record that reports read, besides its metrics.
_FIELDS = {
    "schema": "INTEGER",
    "case": "VARCHAR",
    "status": "VARCHAR",
    "edit_type": "VARCHAR",
    "edit_name": "VARCHAR",
    "seconds": "DOUBLE",
    "source_prompt": "VARCHAR",
    "target_prompt": "VARCHAR",
}
_KEPT = ("case", "edit_type", "edit_name", "seconds")
_PROMPTS = ("source_prompt", "target_prompt")


@dataclass(frozen=True)
class Cells:
    """Measured values by run and case. Arrays are [run, case], nan where missing."""

    cases: list[str]
    edit_types: list[str]  # of each case
    edit_names: Mapping[str, str]  # edit type -> its name
    recorded: NDArray[np.bool_]
    ok: NDArray[np.bool_]
    values: Mapping[str, NDArray[np.float64]]


class Store:
    """The last record of each case of each run.

    Table `cells`: run (its position in `runs`), case, edit_type, edit_name, seconds, ok, and
    a column for each metric, m0, m1, …: null if the case failed or the metric does not apply.
    """

    def __init__(
        self, runs: Sequence[Run], columns: Sequence[Column], *, prompts: bool = False
    ) -> None:
        self.runs = runs
        self._metrics = {str(column["name"]): f"m{i}" for i, column in enumerate(columns)}
        self._kept = (*_KEPT, *(_PROMPTS if prompts else ()))
        threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
        settings: dict[str, Any] = {"threads": threads, "temp_directory": tempfile.gettempdir()}
        self._db = duckdb.connect(config=settings)
        self._load()
        self._keep_last()
        self._infinite = self._any_of("isinf")

    def summaries(self, rows: Sequence[int], *, per_type: bool) -> list[Summary]:
        """Summarize each row; `rows` gives the row that each run belongs to.

        If a row has several runs, each case's values are first averaged over them, so that n and
        the standard error count cases, not repetitions.
        """
        count = max(rows, default=-1) + 1
        self._name_rows(rows)
        overall: list[dict[str, Group]] = [{} for _ in range(count)]
        types: list[dict[str, Group]] = [{} for _ in range(count)]
        gathers = len(set(rows)) < len(rows)
        for row, _, group in self._groups(gathers, by_type=False):
            overall[row]["all"] = group
        for row, kind, group in self._groups(gathers, by_type=True) if per_type else ():
            types[row][kind] = group
        nothing = Group("all", 0, 0, 0.0, dict.fromkeys(self._metrics, Statistic(None, None, 0)))
        return [
            Summary(of_all.get("all", nothing), dict(sorted(kinds.items(), key=_by_type)))
            for of_all, kinds in zip(overall, types, strict=True)
        ]

    def recorded(self) -> list[int]:
        """Number of cases with a record, per run."""
        counts = dict(self._rows("SELECT run, count(*) FROM cells GROUP BY run"))
        return [counts.get(run, 0) for run in range(len(self.runs))]

    def cells(self) -> Cells:
        """All metrics' values as arrays, for statistics over cases."""
        types = dict(self._rows('SELECT "case", min(edit_type) FROM cells GROUP BY ALL'))
        names = dict(self._rows("SELECT edit_type, min(edit_name) FROM cells GROUP BY ALL"))
        cases = self._in_order(types)
        place = {case: i for i, case in enumerate(cases)}
        shorts = "".join(f", {short}" for short in self._metrics.values())
        # The arrays are masked where a value is NULL; none is categorical.
        query = f'SELECT run, "case", ok{shorts} FROM cells'
        table = cast("Mapping[str, Any]", self._db.execute(query).fetchnumpy())
        where = table["run"], np.array([place[case] for case in table["case"]], dtype=int)
        shape = len(self.runs), len(cases)
        return Cells(
            cases=cases,
            edit_types=[types[case] or "" for case in cases],
            edit_names={kind: name or kind for kind, name in names.items()},
            recorded=_spread(np.ones(len(table["run"]), bool), where, np.zeros(shape, bool)),
            ok=_spread(table["ok"], where, np.zeros(shape, bool)),
            values={
                name: _spread(_floats(table[short]), where, np.full(shape, np.nan))
                for name, short in self._metrics.items()
            },
        )

    def cases_of_two_meanings(self) -> list[str]:
        """Cases whose prompts differ between runs; needs a store with prompts."""
        differ = " OR ".join(
            f"count(DISTINCT {name}) FILTER ({name} <> '') > 1" for name in _PROMPTS
        )
        query = f'SELECT "case" FROM cells GROUP BY ALL HAVING {differ} ORDER BY ALL'
        return [case for (case,) in self._rows(query)]

    def _in_order(self, cases: Mapping[str, Any]) -> list[str]:
        """The cases in the datasets' order; unlisted ones come last."""
        listed = dict.fromkeys(case for run in self.runs for case in run.origin.case_ids)
        return [case for case in listed if case in cases] + sorted(cases.keys() - listed.keys())

    def _load(self) -> None:
        with _whole_files(self.runs) as files:
            try:
                self._db.execute(self._create(files))
                broken = self._one("SELECT count(*) FROM cells WHERE NOT fine")
                broken = broken or self._any_of("isnan")
            except duckdb.Error as error:
                self._explain(error)
        if broken:
            self._explain(None)
        self._db.execute("ALTER TABLE cells DROP COLUMN fine")

    def _create(self, files: Mapping[str, int]) -> str:
        """SQL that reads all files; a table of file names gives each run's position."""
        pairs = ", ".join(f"({_text(name)}, {run})" for name, run in files.items())
        statuses = ", ".join(map(_text, STATUSES))
        kept = ", ".join(f'"{name}"' for name in self._kept)
        kept = kept.replace('"edit_name"', "nullif(edit_name, '') AS edit_name")
        values = "".join(
            f", CASE WHEN status = 'ok' THEN metrics.{_name(metric)} END AS {short}"
            for metric, short in self._metrics.items()
        )
        return f"""
            CREATE TEMP TABLE cells AS
            SELECT run, {kept}, status = 'ok' AS ok,
                   coalesce(schema = {SCHEMA} AND status IN ({statuses}) AND "case" <> '', false)
                   AS fine{values}
            FROM {self._source(list(files))}
            JOIN (VALUES {pairs or "('', 0)"}) AS file(filename, run) USING (filename)
        """

    def _source(self, files: Sequence[str]) -> str:
        metrics = ", ".join(f"{_name(name)} DOUBLE" for name in self._metrics)
        types = {name: _FIELDS[name] for name in ("schema", "status", *self._kept)}
        types["metrics"] = f"STRUCT({metrics})" if metrics else "JSON"
        if not files:
            nothing = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in types.items())
            return f"(SELECT '' AS filename, {nothing} LIMIT 0)"
        columns = ", ".join(f"{_text(name)}: {_text(kind)}" for name, kind in types.items())
        names = ", ".join(_text(_no_pattern(name)) for name in files)
        return (
            f"read_json([{names}], format = 'newline_delimited', filename = true, "
            f"columns = {{{columns}}})"
        )

    def _explain(self, error: Exception | None) -> NoReturn:
        """Raise `read_records`' error, which names the damaged line."""
        for run in self.runs:
            if (run.directory / FILE_NAME).exists():
                read_records(run.directory)
        raise RecordError(f"the records can't be read: {error or 'a metric is not a number'}")

    def _keep_last(self) -> None:
        """Keep each case's last line: repeated attempts have several, in order."""
        lines = 'SELECT max(rowid) AS last, count(*) AS n FROM cells GROUP BY run, "case"'
        if self._one(f"SELECT count(*) FROM ({lines}) WHERE n > 1"):
            self._db.execute(f"DELETE FROM cells WHERE rowid NOT IN (SELECT last FROM ({lines}))")

    def _any_of(self, test: str) -> frozenset[str]:
        """The metrics' columns with a value for which `test` is true."""
        shorts = list(self._metrics.values())
        asked = "".join(f", coalesce(bool_or({test}({short})), false)" for short in shorts)
        _, *row = self._rows(f"SELECT count(*){asked} FROM cells")[0]
        return frozenset(short for short, has in zip(shorts, row, strict=True) if has)

    def _name_rows(self, rows: Sequence[int]) -> None:
        pairs = ", ".join(f"({run}, {row})" for run, row in enumerate(rows)) or "(0, 0)"
        self._db.execute(
            f"CREATE OR REPLACE TEMP TABLE named AS FROM (VALUES {pairs}) AS t(run, line)"
        )

    def _groups(self, gathers: bool, *, by_type: bool) -> Iterator[tuple[int, str, Group]]:
        """Yield (row, edit type, group) for each existing group of cases."""
        kind = "edit_type" if by_type else "''"
        chosen = "WHERE edit_type <> ''" if by_type else ""
        source = self._per_case() if gathers else self._per_record()
        sums = "".join(
            f", avg({m}), stddev_samp({m}), count({m}), sum({m}_all), sum({m}_inf)"
            for m in self._metrics.values()
        )
        query = f"""
            SELECT line, {kind}, min(edit_name), count(*), sum(failed), sum(seconds), sum(fine)
                   {sums}
            FROM ({source}) {chosen} GROUP BY line, {kind}
        """
        for row, kind, name, cases, failed, seconds, fine, *numbers in self._rows(query):
            metrics = {
                metric: _statistic(int(fine), *numbers[5 * i : 5 * i + 5])
                for i, metric in enumerate(self._metrics)
            }
            title = (name or kind) if by_type else "all"
            yield row, kind, Group(title, cases, int(failed), float(seconds), metrics)

    def _per_record(self) -> str:
        values = "".join(
            f", {self._finite(m)} AS {m}, ({m} IS NOT NULL)::INT AS {m}_all, "
            f"{self._is_infinite(m)} AS {m}_inf"
            for m in self._metrics.values()
        )
        return (
            "SELECT line, edit_type, edit_name, (NOT ok)::INT AS failed, ok::INT AS fine, seconds"
            f"{values} FROM cells JOIN named USING (run)"
        )

    def _per_case(self) -> str:
        means = "".join(
            f", avg({m}) AS {m}, sum({m}_all) AS {m}_all, sum({m}_inf) AS {m}_inf"
            for m in self._metrics.values()
        )
        records = self._per_record().replace("SELECT", 'SELECT "case",', 1)
        return (
            'SELECT line, "case", min(edit_type) AS edit_type, min(edit_name) AS edit_name, '
            f"sum(failed) AS failed, sum(fine) AS fine, sum(seconds) AS seconds{means} "
            f'FROM ({records}) GROUP BY line, "case"'
        )

    def _finite(self, short: str) -> str:
        return f"CASE WHEN isfinite({short}) THEN {short} END" if short in self._infinite else short

    def _is_infinite(self, short: str) -> str:
        return f"coalesce(isinf({short}), false)::INT" if short in self._infinite else "0"

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._db.execute(query).fetchall()

    def _one(self, query: str) -> int:
        return int(self._rows(query)[0][0])


def _statistic(
    fine: int, mean: float | None, spread: float | None, n: int, known: int, infinite: int
) -> Statistic:
    stderr = None if spread is None else spread / n**0.5
    return Statistic(mean, stderr, n, fine - int(known), int(infinite))


def _by_type(item: tuple[str, Group]) -> list[tuple[int, float, str]]:
    return natural(item[0])


def _spread(
    values: NDArray[Any], where: tuple[NDArray[Any], NDArray[Any]], into: NDArray[Any]
) -> NDArray[Any]:
    into[where] = values
    return into


def _floats(values: NDArray[Any]) -> NDArray[np.float64]:
    """Null values, which DuckDB masks, as nan."""
    return np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)


@contextmanager
def _whole_files(runs: Sequence[Run]) -> Generator[dict[str, int]]:
    """Yield the runs' record files -> the run's position.

    A file that ends in an incomplete line (the run is in progress or was killed) is copied
    without that line.
    """
    with tempfile.TemporaryDirectory(prefix="zerocon-records-") as folder:
        files: dict[str, int] = {}
        for position, run in enumerate(runs):
            path = run.directory / FILE_NAME
            if not path.exists():
                continue  # the run has no records yet
            if not _ends_whole(path):
                lines = b"".join(record.to_line() for record in read_records(run.directory))
                path = Path(folder) / f"{position}.jsonl"
                path.write_bytes(lines)
            files[str(path)] = position
        yield files


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read() in (b"\n", b"")


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _no_pattern(path: str) -> str:
    """Escape the characters that DuckDB would read as a glob."""
    return re.sub(r"([*?\[])", r"[\1]", path)
