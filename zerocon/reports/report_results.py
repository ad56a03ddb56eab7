"""Means with intervals, of runs and of the values of settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from zerocon.reports.frontier import mean_of_runs
from zerocon.reports.layout import ranks
from zerocon.reports.report_html import cell, head, head_of, notes, table, worded
from zerocon.reports.report_variants import Variants
from zerocon.reports.statistics import LEVEL, RESAMPLES, Floats, bootstrap_means
from zerocon.reports.store import Cells
from zerocon.reports.summary import Column


@dataclass(frozen=True)
class Estimate:
    """A mean over cases; nan where there is none, or too few cases for an interval."""

    mean: float
    low: float
    high: float
    n: int

    def worded(self, column: Column) -> tuple[str, str]:
        """The mean, and its interval."""
        if not self.n:
            return worded(None, column), ""
        if self.n < 2:
            return worded(self.mean, column), ""
        return worded(
            self.mean, column
        ), f"{worded(self.low, column)} … {worded(self.high, column)}"


def estimates(values: Floats, resamples: int = RESAMPLES) -> list[Estimate]:
    """Of each row of [point, case]. Infinities have no mean and are left out."""
    there = np.isfinite(values)
    counts = there.sum(1)
    found: dict[int, Estimate] = {}
    for n in np.unique(counts):  # rows of one size share their resamples
        which = np.flatnonzero(counts == n)
        together = values[which][there[which]].reshape(len(which), n)  # [point, n]
        found |= dict(zip(which.tolist(), _of_size(together, resamples), strict=True))
    return [found[point] for point in range(len(values))]


def _of_size(values: Floats, resamples: int) -> list[Estimate]:
    n, nan = values.shape[1], float("nan")
    if n < 2:
        means = values[:, 0].tolist() if n else [nan] * len(values)
        return [Estimate(mean, nan, nan, n) for mean in means]
    low, high = bootstrap_means(values.T, resamples=resamples)
    return [
        Estimate(float(m), float(a), float(b), n)
        for m, a, b in zip(values.mean(1), low, high, strict=True)
    ]


def gathered(values: Floats, groups: Iterable[Sequence[int]]) -> Floats:
    """[run, case] -> [group, case]: each case's mean over the runs of a group."""
    rows = [mean_of_runs(values[list(group)]) for group in groups]
    return np.stack(rows) if rows else values[:0]


@dataclass(frozen=True)
class Results:
    """Of each metric, what each run's cases say."""

    columns: Sequence[Column]
    runs: Mapping[str, list[Estimate]]  # metric -> by run


def results_of(columns: Sequence[Column], cells: Cells) -> Results:
    """Metrics that no run could measure are left out."""
    found = {str(c["name"]): estimates(cells.values[str(c["name"])]) for c in columns}
    known = {name: runs for name, runs in found.items() if any(one.n for one in runs)}
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
    places = ranks([one.mean if one.n else None for one in found], column)
    cells: list[str] = []
    for one, rank in zip(found, places, strict=True):
        mean, between = one.worded(column)
        cells.append(cell(mean, value=one.mean, rank=rank, under=between))
    return cells


def _how() -> list[str]:
    return [
        (
            f"mean over cases; below it the {LEVEL:.0%} interval from {RESAMPLES:,} resamples of "
            "the cases. It says how sure a mean is; whether two variants differ says zerocon "
            "compare, case by case"
        ),
        "bold: best, underlined: second best; a click on a column's name sorts by it",
    ]


def _left_out(results: Results, cells: Cells) -> list[str]:
    """Where a mean is over fewer cases than went well."""
    fine = cells.ok.sum(1).tolist()
    said: list[str] = []
    for name, found in results.runs.items():
        fewer = [one.n for one, n in zip(found, fine, strict=True) if one.n < n]
        if fewer:
            least, most = min(fewer), max(fewer)
            said.append(f"{name}: n = {least}" + (f" to {most}" if most > least else ""))
    return [f"means over fewer cases, where others have no finite value: {'; '.join(said)}"] * bool(
        said
    )
