"""Means with intervals, per run and per value of a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zerocon.reports.estimates import Estimate, estimates
from zerocon.reports.layout import ranks
from zerocon.reports.page.markup import cell, head, head_of, notes, table, worded
from zerocon.reports.page.variants import Variants
from zerocon.reports.store import Cells
from zerocon.reports.summary import LEVEL, RESAMPLES, Column


@dataclass(frozen=True)
class Results:
    """Each metric's estimates for all runs."""

    columns: Sequence[Column]
    runs: Mapping[str, list[Estimate]]  # metric -> by run


def results_of(columns: Sequence[Column], cells: Cells) -> Results:
    """Estimate every metric that some run could measure."""
    found = {str(c["name"]): estimates(cells.values[str(c["name"])]) for c in columns}
    known = {
        name: runs for name, runs in found.items() if any(one.n or one.infinite for one in runs)
    }
    return Results([c for c in columns if c["name"] in known], known)


def results_table(
    variants: Variants, results: Results, cells: Cells, name: str, said: Sequence[str]
) -> str:
    header = [head("variant", key=True), head("cases"), head("failed")]
    header += [head_of(column) for column in results.columns]
    counts = cells.recorded.sum(1).tolist(), (cells.recorded & ~cells.ok).sum(1).tolist()
    metrics = [_metric_cells(results.runs[str(c["name"])], c) for c in results.columns]
    rows = [
        [cell(label, key=True), *(cell(str(n), value=n) for n in numbers), *of_metrics]
        for label, numbers, of_metrics in zip(
            variants.labels,
            zip(*counts, strict=True),
            _by_run(metrics, len(variants.runs)),
            strict=True,
        )
    ]
    return table(header, rows, name=name) + notes([*_how(), *_left_out(results, cells), *said])


def _by_run(metrics: Sequence[Sequence[str]], runs: int) -> list[list[str]]:
    return [[column[run] for column in metrics] for run in range(runs)]


def _metric_cells(found: Sequence[Estimate], column: Column) -> list[str]:
    means = [one.mean if one.n else None for one in found]
    places = ranks(means, column, [one.infinite / max(one.infinite + one.n, 1) for one in found])
    cells: list[str] = []
    for one, rank in zip(found, places, strict=True):
        mean, between = _worded(one, column)
        sorted_by = math.inf if one.infinite else one.mean
        cells.append(cell(mean, value=sorted_by, rank=rank, under=between))
    return cells


def _worded(one: Estimate, column: Column) -> tuple[str, str]:
    """The mean and its interval; with infinite values, their count and the others' mean."""
    if not one.n:
        return ("∞", "") if one.infinite else (worded(None, column), "")
    mean = worded(one.mean, column)
    mean = f"∞ in {one.infinite}, else {mean}" if one.infinite else mean
    return mean, f"{worded(one.low, column)} … {worded(one.high, column)}" if one.n > 1 else ""


def _how() -> list[str]:
    return [
        (
            f"mean over cases; below it the {LEVEL:.0%} interval from {RESAMPLES:,} resamples of "
            "the cases. It is the uncertainty of one mean; zerocon compare tests whether two "
            "variants differ, case by case"
        ),
        "bold: best, underlined: second best; click on a column's name to sort by it",
    ]


def _left_out(results: Results, cells: Cells) -> list[str]:
    """Note the metrics whose means cover fewer cases than succeeded."""
    fine = cells.ok.sum(1).tolist()
    said: list[str] = []
    for name, found in results.runs.items():
        fewer = [one.n for one, n in zip(found, fine, strict=True) if one.n < n]
        if fewer:
            least, most = min(fewer), max(fewer)
            said.append(f"{name}: n = {least}" + (f" to {most}" if most > least else ""))
    return [
        f"means over fewer cases, because the others have no finite value: {'; '.join(said)}"
    ] * bool(said)
