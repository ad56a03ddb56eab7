"""Do paired differences support a difference? Bootstrap, Wilcoxon, Holm, effect size.

Everything works on many samples at once: `differences` are [case, sample], nan where a pair
is missing, and a sample is one metric (or one simulated experiment).
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

_ROUNDING = 1e-9  # of the spread: less apart is the same number
_AT_ONCE = 4_000_000  # numbers of the resampling weights in memory at a time


@dataclass(frozen=True)
class Paired:
    """What one sample of paired differences says. nan where there are too few pairs."""

    n: int
    mean: float
    low: float
    high: float
    p: float  # of the Wilcoxon signed-rank test, two-sided, not yet corrected
    effect: float  # Cohen's d of paired samples: mean / standard deviation of the differences


def paired(
    differences: Floats, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> list[Paired]:
    """One `Paired` for each sample, a column of `differences`."""
    results: dict[int, Paired] = {}
    present = ~np.isnan(differences)
    counts = present.sum(0)
    for n in np.unique(counts):  # samples of one size share their resamples
        which = np.flatnonzero(counts == n)
        together = differences.T[which][present.T[which]].reshape(len(which), n).T
        results |= dict(
            zip(which.tolist(), _same_size(together, resamples, level, seed), strict=True)
        )
    return [results[sample] for sample in range(differences.shape[1])]


def _same_size(differences: Floats, resamples: int, level: float, seed: int) -> list[Paired]:
    n, samples = differences.shape
    if n < 2:
        means = differences.mean(0) if n else np.full(samples, np.nan)
        nan = float("nan")
        return [Paired(n, float(mean), nan, nan, nan, nan) for mean in means]
    low, high = bootstrap_means(differences, resamples=resamples, level=level, seed=seed)
    return [
        Paired(n, *map(float, numbers))
        for numbers in zip(
            differences.mean(0), low, high, wilcoxon(differences), effect(differences), strict=True
        )
    ]


def bootstrap_means(
    values: Floats, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[Floats, Floats]:
    """Confidence interval of each column's mean, [sample] each."""
    means = np.concatenate([w @ values for w in resampling(len(values), resamples, seed)])
    return interval(means, values.mean(0), len(values), level)


def resampling(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How much each of `n` cases weighs in each resample, [resample, case], some at a time."""
    random = np.random.default_rng((seed, n))
    left = resamples
    while left:
        rows = min(left, max(1, _AT_ONCE // n))
        drawn = random.integers(0, n, (rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n) / n
        left -= rows


def interval(resampled: Floats, estimate: Floats, n: int, level: float) -> tuple[Floats, Floats]:
    """Bias-corrected percentiles (Efron 1981) of each column of `resampled`, [resample, sample].

    They are taken a little further out, as a t distribution's are and because resampling
    underestimates the spread by (n-1)/n (Hesterberg 2015): without that the interval covers
    less than it says when there are few cases. Correcting for skewness, too (BCa), covered
    less in simulations where single cases are far out, and those are what metrics have.
    """
    slack = _ROUNDING * resampled.std(0)  # sums of the same numbers, added up in another order
    equal = np.abs(resampled - estimate) <= slack
    below = (resampled < estimate - slack).mean(0) + 0.5 * equal.mean(0)
    edge = 0.5 / len(resampled)
    bias = special.ndtri(np.clip(below, edge, 1 - edge))
    reach = np.sqrt(n / (n - 1)) * stats.t.ppf((1 + level) / 2, n - 1)
    ordered = np.sort(np.ascontiguousarray(resampled.T), axis=1)
    low, high = (_quantiles(ordered, special.ndtr(2 * bias + z)) for z in (-reach, reach))
    return low, high


def _quantiles(ordered: Floats, shares: Floats) -> Floats:
    """Of each row of sorted numbers its own quantile."""
    place = np.clip(shares, 0, 1) * (ordered.shape[1] - 1)
    down = np.floor(place).astype(int)
    up = np.minimum(down + 1, ordered.shape[1] - 1)
    row = np.arange(len(ordered))
    return ordered[row, down] + (place - down) * (ordered[row, up] - ordered[row, down])


def wilcoxon(differences: Floats) -> Floats:
    """Two-sided p of each column's signed-rank test; 1 where all pairs are equal, [sample].

    Zeros are ranked and then left out (Pratt 1959): where most pairs are ties, leaving them
    out first would let a few others speak for all.
    """
    some = (differences != 0).any(0)
    p = np.ones(differences.shape[1])
    if some.any():
        tested: Any = stats.wilcoxon(differences[:, some], zero_method="pratt", axis=0)
        p[some] = tested.pvalue
    return p


def effect(differences: Floats) -> Floats:
    """Mean over standard deviation of the differences; 0 where all are equal and 0, [sample]."""
    spread = differences.std(0, ddof=1)
    mean = differences.mean(0)
    unclear = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.divide(mean, spread, out=unclear, where=spread > 0)


def holm(p: Floats) -> Floats:
    """p values corrected for being several (Holm 1979); nan stays and counts for nothing."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected
