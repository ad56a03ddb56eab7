"""Statistics of paired differences: bootstrap, Wilcoxon, Holm, effect size.

All functions take many samples at once: `differences` are [case, sample], nan where a pair is
missing. A sample is one metric (or one simulated experiment).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from zerocon.reports.summary import LEVEL, RESAMPLES

Floats = NDArray[np.float64]

_ROUNDING = 1e-9  # numbers closer than this share of the spread are equal
_MOST_ENUMERATED = 13  # up to this many pairs with ties are tested exactly
_FEWEST_STUDENTISED = 10  # cases; with fewer, a resample's spread is too unreliable
_AT_ONCE = 4_000_000  # resampling weights in memory at a time


@dataclass(frozen=True)
class Paired:
    """Statistics of one sample of paired differences; nan with too few pairs.

    If some differences are infinite, their mean has no interval and no standard deviation.
    Interval and effect are then computed from the differences' signed ranks, which are finite.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float  # two-sided Wilcoxon signed-rank test, uncorrected
    effect: float  # Cohen's d of paired samples: mean / standard deviation of the differences
    by_ranks: bool = False


def paired(
    differences: Floats, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> list[Paired]:
    """Compute the statistics of each sample, a column of `differences`."""
    results: dict[int, Paired] = {}
    present = ~np.isnan(differences)
    counts = present.sum(0)
    for n in np.unique(counts):  # samples of equal size share resamples
        which = np.flatnonzero(counts == n)
        together = differences.T[which][present.T[which]].reshape(len(which), n).T
        results |= dict(
            zip(which.tolist(), _same_size(together, resamples, level, seed), strict=True)
        )
    return [results[sample] for sample in range(differences.shape[1])]


def _same_size(differences: Floats, resamples: int, level: float, seed: int) -> list[Paired]:
    n = len(differences)
    means = np.array([mean_of(column) for column in differences.T])
    if n < 2:
        nan = float("nan")
        return [Paired(n, float(mean), nan, nan, nan, nan) for mean in means]
    infinite: Any = np.isinf(differences).any(0)
    finite = np.where(infinite, signed_ranks(differences), differences)
    low, high = bootstrap_means(finite, resamples=resamples, level=level, seed=seed)
    columns = (means, low, high, wilcoxon(differences), effect(finite))
    return [
        Paired(n, *map(float, numbers), by_ranks=bool(ranked))
        for *numbers, ranked in zip(*columns, infinite, strict=True)
    ]


def mean_of(values: Floats) -> float:
    """The mean; nan without values or with infinities of both signs."""
    if not len(values) or {np.inf, -np.inf} <= set(values[np.isinf(values)].tolist()):
        return float("nan")
    return float(values.mean())


def bootstrap_means(
    values: Floats, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[Floats, Floats]:
    """Confidence interval of each column's mean, [sample] each.

    Two intervals are computed from the same resamples; the result is the outer of the two at each
    end. Bias-corrected percentiles (see `interval`) are robust to outliers, but too short on the
    long side of skewed values. The studentised bootstrap (Hall 1988) reaches further there. It is
    not used for fewer than 10 cases, nor if resamples often have no spread, as with rare
    successes.
    """
    n, center = len(values), values.mean(0)
    apart = values - center
    means: list[Floats] = []
    spreads: list[Floats] = []
    for weights in resampling(n, resamples, seed):
        means.append(weights @ values)
        shift = weights @ apart
        spreads.append(np.sqrt(np.maximum(weights @ apart**2 - shift**2, 0.0)))
    resampled = np.concatenate(means)
    low, high = interval(resampled, center, n, level)
    if n < _FEWEST_STUDENTISED:
        return low, high
    reach = _studentised(resampled - center, np.concatenate(spreads), values.std(0), level)
    return np.fmin(low, center - reach[1]), np.fmax(high, center - reach[0])


def _studentised(shifts: Floats, spreads: Floats, spread: Floats, level: float) -> Floats:
    """Quantiles of the resampled t statistic times `spread`, [2, sample]; nan where undefined."""
    flat = spreads <= _ROUNDING * spread
    t = np.divide(shifts, spreads, out=np.full_like(shifts, np.nan), where=~flat)
    tail = (1 - level) / 2
    t[:, flat.mean(0) > tail / 10] = (
        np.nan
    )  # too many resamples without spread to estimate the tail
    t[np.isnan(t) & ~np.isnan(t).all(0)] = 0.0
    ordered = np.sort(np.ascontiguousarray(t.T), axis=1)
    shares = np.full(len(ordered), tail)
    return np.stack([_quantiles(ordered, shares), _quantiles(ordered, 1 - shares)]) * spread


def resampling(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """The weight of each of `n` cases in each resample, [resample, case], in chunks."""
    random = np.random.default_rng((seed, n))
    left = resamples
    while left:
        rows = min(left, max(1, _AT_ONCE // n))
        drawn = random.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n) / n
        left -= rows


def interval(resampled: Floats, estimate: Floats, n: int, level: float) -> tuple[Floats, Floats]:
    """Bias-corrected percentiles (Efron 1981) of each column of `resampled`, [resample, sample].

    The percentiles are taken from a t distribution and widened, because resampling underestimates
    the spread by (n-1)/n (Hesterberg 2015); without that, coverage is too low for few cases. BCa
    had lower coverage in simulations with outliers.
    """
    slack = _ROUNDING * resampled.std(0)  # rounding of sums in different order
    equal = np.abs(resampled - estimate) <= slack
    below = (resampled < estimate - slack).mean(0) + 0.5 * equal.mean(0)
    edge = 0.5 / len(resampled)
    bias = special.ndtri(np.clip(below, edge, 1 - edge))
    return _percentiles(resampled, bias, n, level)


def percentiles(resampled: Floats, n: int, level: float) -> tuple[Floats, Floats]:
    """As `interval`, without bias correction.

    For bounded numbers such as shares: near a bound, most resamples are on one side of the
    estimate even without bias.
    """
    return _percentiles(resampled, np.zeros(resampled.shape[1]), n, level)


def _percentiles(resampled: Floats, bias: Floats, n: int, level: float) -> tuple[Floats, Floats]:
    reach = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)
    ordered = np.sort(np.ascontiguousarray(resampled.T), axis=1)
    low, high = (_quantiles(ordered, special.ndtr(2 * bias + z)) for z in (-reach, reach))
    return low, high


def _quantiles(ordered: Floats, shares: Floats) -> Floats:
    """The quantile of each row of sorted numbers at that row's share."""
    place = np.clip(shares, 0, 1) * (ordered.shape[1] - 1)
    down = np.floor(place).astype(int)
    up = np.minimum(down + 1, ordered.shape[1] - 1)
    row = np.arange(len(ordered))
    return ordered[row, down] + (place - down) * (ordered[row, up] - ordered[row, down])


def wilcoxon(differences: Floats) -> Floats:
    """Two-sided p value of each column's signed-rank test; 1 if all pairs are equal, [sample].

    Zeros are ranked and then dropped (Pratt 1959); dropping them first would let a few pairs
    decide if most are ties. Infinite differences rank highest. Each column is tested separately:
    exactly for up to 50 pairs without ties and zeros, or 13 with them; otherwise by the normal
    approximation.
    """
    ranks = signed_ranks(differences)
    tied, some = _has_ties(ranks), (ranks != 0).any(0)
    few = len(ranks) <= _MOST_ENUMERATED
    p = np.ones(ranks.shape[1])
    for columns, enumerated in ((some & tied, few), (some & ~tied, False)):
        if columns.any():
            p[columns] = (_enumerated if enumerated else _by_scipy)(ranks[:, columns])
    return p


def _by_scipy(ranks: Floats) -> Floats:
    """p values by SciPy, which uses one test per call: the columns must be of one kind."""
    tested: Any = stats.wilcoxon(ranks, zero_method="pratt", axis=0)
    return tested.pvalue


def _enumerated(ranks: Floats) -> Floats:
    """Exact p values, by enumerating all patterns of signs."""
    n = len(ranks)
    signs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1  # [pattern, case]
    sums, seen = signs @ np.abs(ranks), np.maximum(ranks, 0).sum(0)  # sums of the positive ranks
    as_low, as_high = (sums <= seen).mean(0), (sums >= seen).mean(0)
    return np.minimum(1, 2 * np.minimum(as_low, as_high))


def signed_ranks(differences: Floats) -> Floats:
    """The rank of each difference's size within its column, with the difference's sign.

    Equal differences share their mean rank; an infinite one is larger than any finite one.
    """
    return np.sign(differences) * stats.rankdata(np.abs(differences), axis=0)


def _has_ties(ranks: Floats) -> NDArray[np.bool_]:
    """Whether each column has ties or zeros, [sample]."""
    ordered = np.sort(np.abs(ranks), axis=0)
    return (np.diff(ordered, axis=0) == 0).any(0) | (ordered[0] == 0)


def effect(differences: Floats) -> Floats:
    """Mean over standard deviation of the differences; 0 if all are 0, [sample]."""
    spread = differences.std(0, ddof=1)
    mean = differences.mean(0)
    unclear = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.divide(mean, spread, out=unclear, where=spread > 0)


def holm(p: Floats) -> Floats:
    """Correct p values for multiple tests (Holm 1979); nan stays nan and is not counted."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected


def mean_of_runs(values: Floats) -> Floats:
    """[run, case] -> [case]"""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(0)
    return np.divide(total, there.sum(0), out=np.full_like(total, np.nan), where=there.any(0))
