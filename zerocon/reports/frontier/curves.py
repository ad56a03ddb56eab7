"""Trade-off curves: each method over the values of one setting.

A point is the mean of two metrics over the same cases: how well the edit succeeds, and how
much is preserved. A curve is a method with one setting swept. Its hypervolume is the share of
the box between the worst and the best observed values that it dominates: where some point of
the curve is at least as good in both metrics. A resampled curve may leave the box; only what it
dominates inside counts, so no share is above 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zerocon.core.checks import ConfigError
from zerocon.reports.frontier.plot import Curve
from zerocon.reports.runs import Run, check_field, natural, varying
from zerocon.reports.statistics import Floats, mean_of_runs, percentiles, resampling
from zerocon.reports.store import Cells
from zerocon.reports.summary import LEVEL, RESAMPLES, Column

MARGIN = 0.1  # the box extends beyond the worst point by this share of its side

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CurveRuns:
    """The runs of one curve: for each swept value, the positions of its runs."""

    name: str
    setting: str
    points: dict[str, list[int]]


@dataclass(frozen=True)
class Points:
    """All points of all curves, in order. Values are [point, case], nan where missing."""

    x: Floats
    y: Floats
    columns: tuple[Column, Column]

    def means(self, weights: Floats) -> Floats:
        """Mean gain in both metrics under each weighting of the cases, [weighting, point, 2]."""
        metrics = zip((self.x, self.y), self.columns, strict=True)
        return np.stack([_sign(c) * _weighted(values, weights) for values, c in metrics], axis=-1)

    def counts(self) -> NDArray[np.int64]:
        """Number of cases of each mean, [point, 2]."""
        return np.stack([np.isfinite(self.x).sum(1), np.isfinite(self.y).sum(1)], axis=-1)

    def errors(self) -> Floats:
        """Standard errors of the means, [point, 2]; nan for a single case."""
        return np.stack([_standard_errors(self.x), _standard_errors(self.y)], axis=-1)


def _sign(column: Column) -> float:
    return 1.0 if column["better"] == "higher" else -1.0


def _weighted(values: Floats, weights: Floats) -> Floats:
    there = np.isfinite(values)
    total = weights @ np.where(there, values, 0.0).T
    weight = weights @ there.T.astype(np.float64)
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def _standard_errors(values: Floats) -> Floats:
    n = np.isfinite(values).sum(1)
    spread = np.array(
        [np.std(row[np.isfinite(row)], ddof=1) if len(row) > 1 else np.nan for row in values]
    )
    return spread / np.sqrt(np.maximum(n, 1))


def hypervolume(gains: Floats, reference: Floats, ideal: Floats | None = None) -> Floats:
    """Area dominated by points [..., point, 2], bounded by `reference`; shape [...].

    With `ideal`, only the area inside the box between the two.
    """
    inside = gains if ideal is None else np.minimum(gains, ideal)
    above = np.maximum(inside - reference, 0.0)
    order = np.argsort(-above[..., 0], axis=-1)
    x = np.take_along_axis(above[..., 0], order, -1)
    height = np.maximum.accumulate(np.take_along_axis(above[..., 1], order, -1), axis=-1)
    next_x = np.concatenate([x[..., 1:], np.zeros_like(x[..., :1])], axis=-1)
    return ((x - next_x) * height).sum(-1)


def pareto(gains: Floats) -> Flags:
    """Return which points [point, 2] no other point dominates (as good in both, better in one)."""
    as_good = (gains[:, None] >= gains[None]).all(-1)  # [a, b]: a is as good as b in both
    better = (gains[:, None] > gains[None]).any(-1)
    return np.asarray(~(as_good & better).any(0))


@dataclass(frozen=True)
class Volume:
    """A curve's hypervolume as a share of the box, and its distance to the largest one."""

    share: float
    low: float
    high: float
    behind: float
    behind_low: float
    behind_high: float


def volumes(
    points: Points, members: Sequence[Sequence[int]], *, resamples: int, seed: int
) -> list[Volume]:
    """The volume of each curve, given its points' positions; intervals are over the cases."""
    cases = points.x.shape[1]
    gains = points.means(np.full((1, cases), 1 / cases))[0]  # [point, 2]
    reference, ideal = box(gains)
    area = float(np.prod(ideal - reference))
    shares = np.minimum([hypervolume(gains[list(m)], reference) / area for m in members], 1.0)
    drawn = np.concatenate(
        [
            np.stack([hypervolume(means[:, list(m)], reference, ideal) for m in members], -1) / area
            for means in map(points.means, resampling(cases, resamples, seed))
        ]
    )  # [resample, curve]
    drawn = np.minimum(drawn, 1.0)  # sums may round to above 1
    best = int(shares.argmax())
    low, high = _interval(drawn, shares, cases)
    behind = shares[best] - shares
    behind_low, behind_high = _interval(drawn[:, best : best + 1] - drawn, behind, cases)
    columns = (shares, low, high, behind, behind_low, behind_high)
    return [Volume(*map(float, numbers)) for numbers in zip(*columns, strict=True)]


def _interval(drawn: Floats, estimate: Floats, cases: int) -> tuple[Floats, Floats]:
    """Percentiles of the resampled values, widened to include the estimate."""
    if cases < 2:
        return np.full_like(estimate, np.nan), np.full_like(estimate, np.nan)
    low, high = percentiles(drawn, cases, LEVEL)
    return np.minimum(low, estimate), np.maximum(high, estimate)


def box(gains: Floats) -> tuple[Floats, Floats]:
    """The box's corners: slightly worse than the worst values, and the best values."""
    worst, ideal = gains.min(0), gains.max(0)
    side = np.where(ideal > worst, ideal - worst, 1.0)
    return worst - MARGIN * side, ideal


def curve_runs(
    runs: Sequence[Run],
    by: Sequence[str],
    along: Sequence[str],
    curve_of: Mapping[str, str] | None = None,
) -> list[CurveRuns]:
    """Group runs into curves; without `by` and `along`, by the settings that vary.

    `curve_of` maps run names to curves instead.
    """
    for name in (*by, *along):
        check_field(runs, name)
    keys = ["name"] if curve_of else list(by) or ["method", *_words(runs)]
    curves: dict[tuple[str, ...], list[int]] = {}
    for position, run in enumerate(runs):
        values = tuple(run.field(key) for key in keys)
        label = (curve_of[values[0]],) if curve_of else values
        curves.setdefault(label, []).append(position)
    ordered = sorted(curves.items(), key=_naturally)
    return [_curve_runs(_name(keys, label), runs, members, along) for label, members in ordered]


def _naturally(item: tuple[tuple[str, ...], list[int]]) -> list[list[tuple[int, float, str]]]:
    return [natural(part) for part in item[0]]


def _words(runs: Sequence[Run]) -> list[str]:
    """Non-numeric settings that vary between runs of one method; they separate curves."""
    methods: dict[str, list[Run]] = {}
    for run in runs:
        methods.setdefault(run.field("method"), []).append(run)
    found = {
        name: values for several in methods.values() for name, values in varying(several).items()
    }
    return [name for name, values in found.items() if not all(map(is_number, values))]


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _name(keys: Sequence[str], label: Sequence[str]) -> str:
    """The first value without, the others with their setting's name."""
    others = [
        f"{key.rpartition('.')[2]} {part}" for key, part in zip(keys[1:], label[1:], strict=True)
    ]
    return ", ".join([label[0], *others])


def _curve_runs(
    name: str, runs: Sequence[Run], members: Sequence[int], along: Sequence[str]
) -> CurveRuns:
    swept = varying([runs[position] for position in members])
    swept.pop("seed", None)
    chosen = [setting for setting in along if setting in swept] or list(swept)
    if not along and len(swept) > 1:
        raise ConfigError(
            f"the runs of {name} differ in {', '.join(swept)}: choose the curve's setting with "
            "--along, or separate the runs with --by"
        )
    if not chosen:
        return CurveRuns(name, "", {"": list(members)})
    points: dict[str, list[int]] = {}
    for position in members:
        points.setdefault(runs[position].field(chosen[0]), []).append(position)
    return CurveRuns(
        name, chosen[0], dict(sorted(points.items(), key=lambda item: natural(item[0])))
    )


def points_of(curves: Sequence[CurveRuns], cells: Cells, columns: tuple[Column, Column]) -> Points:
    """Return each point's values: each case's mean over the point's runs."""
    values = [cells.values[str(column["name"])] for column in columns]
    positions = [members for curve in curves for members in curve.points.values()]
    x, y = (np.stack([mean_of_runs(v[members]) for members in positions]) for v in values)
    return Points(x, y, columns)


@dataclass(frozen=True)
class Frontier:
    """Everything shown about a set of curves."""

    curves: Sequence[Curve]
    columns: tuple[Column, Column]
    volumes: Sequence[Volume]
    on_front: Flags  # [point]
    corners: tuple[Floats, Floats]  # of the box, in the metrics' units
    counts: NDArray[np.int64]  # number of cases of each mean, [point, 2]
    infinite: NDArray[np.int64]  # number of infinite values left out of each mean, [point, 2]


def frontier_of(
    runs: Sequence[Run],
    columns: tuple[Column, Column],
    cells: Cells,
    curves: Sequence[CurveRuns],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Frontier:
    points = points_of(curves, cells, columns)
    cases = len(cells.cases)
    gains = points.means(np.full((1, cases), 1 / cases))[0]
    if np.isnan(gains).any():
        at = int(np.flatnonzero(np.isnan(gains).any(1))[0])
        names = [f"{c.name} {value}".strip() for c in curves for value in c.points]
        raise ConfigError(
            f"{names[at]} has no case in which {columns[0]['name']} and {columns[1]['name']} "
            "could both be measured, so it can't be placed on the frontier"
        )
    ends = np.cumsum([0, *(len(curve.points) for curve in curves)])
    members = [range(a, b) for a, b in pairwise(ends)]
    signs = np.array([_sign(column) for column in columns])
    drawn = [
        _curve(curve, gains[list(m)] * signs, points.errors()[list(m)])
        for curve, m in zip(curves, members, strict=True)
    ]
    sizes = volumes(points, members, resamples=resamples, seed=seed)
    low, high = box(gains)
    corners = low * signs, high * signs
    infinite = _infinite(curves, cells, columns)
    return Frontier(drawn, columns, sizes, pareto(gains), corners, points.counts(), infinite)


def _infinite(
    curves: Sequence[CurveRuns], cells: Cells, columns: tuple[Column, Column]
) -> NDArray[np.int64]:
    """Number of infinite values among each point's runs, [point, 2]."""
    found = [np.isinf(cells.values[str(column["name"])]).sum(1) for column in columns]
    positions = [members for curve in curves for members in curve.points.values()]
    return np.array([[int(of_runs[members].sum()) for of_runs in found] for members in positions])


def _curve(swept: CurveRuns, means: Floats, errors: Floats) -> Curve:
    return Curve(
        swept.name, swept.setting, list(swept.points),
        means[:, 0], means[:, 1], errors[:, 0], errors[:, 1],
    )  # fmt: skip
