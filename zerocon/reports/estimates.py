"""Means over cases and their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from zerocon.reports.statistics import Floats, bootstrap_means, mean_of_runs
from zerocon.reports.store import Cells
from zerocon.reports.summary import RESAMPLES, Group, Summary


@dataclass(frozen=True)
class Estimate:
    """A mean over cases and its interval; nan without cases, or with too few for an interval."""

    mean: float
    low: float
    high: float
    n: int
    infinite: int = 0  # infinite values, left out of the mean


def estimates(values: Floats, resamples: int = RESAMPLES) -> list[Estimate]:
    """Mean and interval of each row's finite values [point, case]; infinite ones are counted."""
    there = np.isfinite(values)
    counts = there.sum(1)
    found: dict[int, Estimate] = {}
    for n in np.unique(counts):  # rows with the same number of cases share resamples
        which = np.flatnonzero(counts == n)
        together = values[which][there[which]].reshape(len(which), n)  # [point, n]
        found |= dict(zip(which.tolist(), _of_size(together, resamples), strict=True))
    infinite = np.isinf(values).sum(1).tolist()
    return [replace(found[point], infinite=infinite[point]) for point in range(len(values))]


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


def with_intervals(
    summaries: Sequence[Summary], cells: Cells, rows: Sequence[int]
) -> list[Summary]:
    """Add an interval to every mean; `rows` gives the summary that each run belongs to."""
    groups = [np.flatnonzero(np.equal(rows, row)).tolist() for row in range(len(summaries))]
    values = {name: gathered(of_runs, groups) for name, of_runs in cells.values.items()}
    types = np.array(cells.edit_types)
    kinds = {kind for summary in summaries for kind in summary.edit_types}
    overall = _by_metric(values, np.full(len(types), True))
    by_type = {kind: _by_metric(values, types == kind) for kind in kinds}
    return [
        Summary(
            _estimated(summary.overall, overall, row),
            {k: _estimated(group, by_type[k], row) for k, group in summary.edit_types.items()},
        )
        for row, summary in enumerate(summaries)
    ]


def _by_metric(values: Mapping[str, Floats], cases: np.ndarray) -> dict[str, list[Estimate]]:
    return {name: estimates(rows[:, cases]) for name, rows in values.items()}


def _estimated(group: Group, found: Mapping[str, Sequence[Estimate]], row: int) -> Group:
    metrics = dict(group.metrics)
    for name, rows in found.items():
        one = rows[row]
        if one.n > 1:
            metrics[name] = replace(metrics[name], interval=(one.low, one.high))
    return replace(group, metrics=metrics)
