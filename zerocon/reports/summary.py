"""Summaries of a run's records: means, standard errors, and counts of what was left out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerocon.core.records import Record
from zerocon.ledger.atomic import write_atomic

FILE_NAME = "summary.json"
LEVEL = 0.95  # confidence level of every interval
RESAMPLES = 10_000  # of the cases, per interval

Column = Mapping[str, Any]  # {"name", "unit", "better": "higher" | "lower" | "", "digits"}


@dataclass(frozen=True)
class Statistic:
    """A metric over the cases that have it; `nan` and `infinite` count the values left out."""

    mean: float | None
    stderr: float | None  # None for fewer than two cases
    n: int
    nan: int = 0
    infinite: int = 0
    interval: tuple[float, float] | None = None  # of the mean, if requested


@dataclass(frozen=True)
class Group:
    """Some cases of a run: all of them, or those of one edit type."""

    name: str
    cases: int
    failed: int
    seconds: float
    metrics: Mapping[str, Statistic]


@dataclass(frozen=True)
class Summary:
    overall: Group
    edit_types: Mapping[str, Group]  # by the dataset's id of the type, in its order


def summarize(records: Sequence[Record], columns: Sequence[Column]) -> Summary:
    names = [str(column["name"]) for column in columns]
    types = sorted({record.edit_type for record in records if record.edit_type}, key=_natural)
    groups = {kind: [r for r in records if r.edit_type == kind] for kind in types}
    return Summary(
        overall=_group("all", records, names),
        edit_types={k: _group(v[0].edit_name or k, v, names) for k, v in groups.items()},
    )


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and standard error of the finite values; infinite ones are only counted."""
    finite = [value for value in values if math.isfinite(value)]
    n, nan = len(finite), sum(map(math.isnan, values))
    mean = math.fsum(finite) / n if n else None
    return Statistic(mean, _stderr(finite, mean), n, nan, len(values) - n - nan)


def _stderr(values: Sequence[float], mean: float | None) -> float | None:
    n = len(values)
    if mean is None or n < 2:
        return None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return math.sqrt(variance / n)


def _group(name: str, records: Sequence[Record], names: Sequence[str]) -> Group:
    fine = [record for record in records if record.ok]
    return Group(
        name=name,
        cases=len(records),
        failed=len(records) - len(fine),
        seconds=math.fsum(record.seconds for record in records),
        metrics={n: statistic([r.metrics.get(n, math.nan) for r in fine]) for n in names},
    )


def _natural(text: str) -> list[tuple[bool, int, str]]:
    """Sorts "10" after "9"."""
    parts = re.findall(r"\d+|\D+", text)
    return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]


def _without_intervals(fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Drop intervals: they are computed when a table is made, not stored."""
    return {name: value for name, value in fields if name != "interval"}


def write_summary(directory: Path, summary: Summary, columns: Sequence[Column]) -> Path:
    stated = asdict(summary, dict_factory=_without_intervals)
    content = {"schema": 1, "columns": [dict(column) for column in columns]} | stated
    path = directory / FILE_NAME
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    return path
