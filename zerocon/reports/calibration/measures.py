"""How well a metric predicts the truth, under any weighting of the cases.

Scores are [run, case], nan where missing, and higher is better: a metric for which lower is better
is negated. Counts say how often each case is drawn, [resample, case]. A case is drawn with its
records of all runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from zerocon.reports.statistics import Floats

Counts = NDArray[np.int64]

PASSING = 90  # per cent of the successful edits that pass the threshold of the false passes
FEWEST_RECORDS = 3  # of a case, for a rank correlation over its records
FEWEST_RUNS = 3  # for a ranking of runs
_AT_ONCE = 4_000_000  # numbers in memory at a time
_DIGITS = 12  # means that agree in as many digits are equal


class Detection:
    """How well scores tell successful edits from failed ones."""

    def __init__(self, scores: Floats, success: Floats) -> None:
        run, case = np.nonzero(~np.isnan(scores) & ~np.isnan(success))
        values, done = scores[run, case], success[run, case] == 1
        self.good, self._good_case = _best_first(values[done], case[done])
        self.bad, self._bad_case = _best_first(values[~done], case[~done])
        cases = scores.shape[1]
        self.successes = np.bincount(self._good_case, minlength=cases)  # [case]
        self.failures = np.bincount(self._bad_case, minlength=cases)
        # for each successful edit, the failed ones with a score at least as good, and better
        self._as_good = np.searchsorted(-self.bad, -self.good, side="right")
        self._better = np.searchsorted(-self.bad, -self.good, side="left")
        self._among = self._failures_among_best()
        self._wins = self._pairs_won()

    def _failures_among_best(self) -> NDArray[np.int32]:
        """How many of the k best failed edits are of each case, [k, case]."""
        found = np.zeros((len(self.bad) + 1, len(self.failures)), np.int32)
        found[1 + np.arange(len(self.bad)), self._bad_case] = 1
        return np.cumsum(found, axis=0, dtype=np.int32)

    def _pairs_won(self) -> Floats:
        """Pairs in which the success scores higher, ties counting half.

        [case of the success, case of the failure]
        """
        lost = self._sum_over_successes(self._as_good) + self._sum_over_successes(self._better)
        return np.outer(self.successes, self.failures) - lost / 2

    def _sum_over_successes(self, best: NDArray[np.int64]) -> Floats:
        """Sum the rows `best` of the failures' counts over each case's successes, [case, case]."""
        shape = len(self.successes), len(self._among)
        rows = sparse.csr_matrix((np.ones(len(best)), (self._good_case, best)), shape=shape)
        return np.asarray(rows @ self._among, dtype=np.float64)

    def auc(self, counts: Counts) -> Floats:
        """The area under the ROC curve over all records, [resample]."""
        weights = counts.astype(np.float64)
        pairs = (weights @ self.successes) * (weights @ self.failures)
        return _share(((weights @ self._wins) * weights).sum(1), pairs)

    def auc_within(self, counts: Counts) -> Floats:
        """The mean over cases of the area within the case, [resample].

        Only cases with both a success and a failure count.
        """
        pairs = (self.successes * self.failures).astype(np.float64)
        return mean_over_cases(_share(np.diagonal(self._wins), pairs), counts)

    def false_passes(self, counts: Counts) -> Floats:
        """The share of failed edits that pass the threshold, [resample].

        The threshold is the highest that `PASSING` per cent of the successful edits pass.
        """
        if not len(self.good):
            return np.full(len(counts), np.nan)
        passed = [
            (some * self._among[self._as_good[self._last_to_pass(some)]]).sum(1)
            for some in _chunks(counts, len(self.good))
        ]
        failures = np.where((counts @ self.successes) > 0, counts @ self.failures, 0)
        return _share(np.concatenate(passed).astype(np.float64), failures.astype(np.float64))

    def threshold(self) -> float:
        """The score that an edit needs to pass; nan without a success."""
        if not len(self.good):
            return float("nan")
        all_once = np.ones((1, len(self.successes)), np.int64)
        return float(self.good[self._last_to_pass(all_once)[0]])

    def _last_to_pass(self, counts: Counts) -> NDArray[np.int64]:
        """The place of the success whose score is the threshold, [resample]."""
        passing = np.cumsum(counts[:, self._good_case], axis=1)
        return (passing * 100 >= passing[:, -1:] * PASSING).argmax(1)


def _best_first(values: Floats, cases: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    order = np.argsort(-values, kind="stable")
    return values[order], cases[order]


def _chunks(counts: Counts, width: int) -> Iterator[Counts]:
    rows = max(1, _AT_ONCE // max(width, counts.shape[1]))
    for start in range(0, len(counts), rows):
        yield counts[start : start + rows]


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def mean_over_cases(values: Floats, counts: Counts) -> Floats:
    """The mean over the cases that have a value, [resample]; `values` are [case]."""
    there = ~np.isnan(values)
    weights = counts[:, there].astype(np.float64)
    return _share(weights @ values[there], weights.sum(1))


def correlations_within_cases(scores: Floats, truth: Floats) -> Floats:
    """Spearman's rank correlation over the records of each case, [case].

    nan if the case has fewer than `FEWEST_RECORDS` records or its truths are all equal. Scores
    that are all equal order nothing: 0.
    """
    there = ~np.isnan(scores) & ~np.isnan(truth)
    found = _correlation(_ranks(scores, there), _ranks(truth, there))
    spread = _varies(truth, there)
    found[~_varies(scores, there)] = 0.0
    found[~spread | (there.sum(0) < FEWEST_RECORDS)] = np.nan
    return found


def _ranks(values: Floats, there: NDArray[np.bool_]) -> Floats:
    """Ranks within each column, nan where not there; equal values share their mean rank."""
    known = stats.rankdata(np.where(there, values, 0.0)).reshape(values.shape)  # finite
    places = np.where(there, known, np.inf)  # after an infinite value, too
    return np.where(there, stats.rankdata(places, axis=0), np.nan)


def _varies(values: Floats, there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    high = np.where(there, values, -np.inf).max(0)
    low = np.where(there, values, np.inf).min(0)
    return np.asarray(high > low)


def _correlation(first: Floats, second: Floats) -> Floats:
    """Pearson's correlation of each column, over the rows that are not nan."""
    n = np.maximum((~np.isnan(first)).sum(0), 1)
    first, second = (x - np.nansum(x, 0) / n for x in (first, second))
    product = np.nansum(first * second, 0)
    sizes = np.sqrt(np.nansum(first**2, 0) * np.nansum(second**2, 0))
    return np.divide(product, sizes, out=np.full(len(product), np.nan), where=sizes > 0)


def run_means(values: Floats, counts: Counts) -> Floats:
    """The mean of each run's finite values, [resample, run]; nan without any."""
    there = np.isfinite(values)
    weights = counts.astype(np.float64)
    total, n = weights @ np.where(there, values, 0.0).T, weights @ there.T.astype(np.float64)
    means = np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)
    largest = np.abs(means[np.isfinite(means)]).max(initial=0.0) or 1.0
    return np.round(means / largest, _DIGITS) * largest  # equal means differ in rounding only


def correlation_of_runs(means: Floats, truth: Floats) -> Floats:
    """Spearman's rank correlation over the runs, [resample]; both are [resample, run]."""
    if means.shape[1] < FEWEST_RUNS:
        return np.full(len(means), np.nan)
    undefined = np.isnan(means).any(1) | np.isnan(truth).any(1)
    found = _correlation(stats.rankdata(means, axis=1).T, stats.rankdata(truth, axis=1).T)
    return np.where(undefined, np.nan, found)


def ranking_of_runs(means: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Kendall's tau-b over the runs and the number of pairs in the wrong order, [resample] each."""
    if means.shape[1] < FEWEST_RUNS:
        return np.full(len(means), np.nan), np.full(len(means), np.nan)
    found = [_ranking(a, b) for a, b in _together(means, truth)]
    taus, wrongs = zip(*found, strict=True)
    return np.concatenate(taus), np.concatenate(wrongs)


def _together(means: Floats, truth: Floats) -> Iterator[tuple[Floats, Floats]]:
    rows = max(1, _AT_ONCE // means.shape[1] ** 2)
    for start in range(0, len(means), rows):
        yield means[start : start + rows], truth[start : start + rows]


def _ranking(means: Floats, truth: Floats) -> tuple[Floats, Floats]:
    ordered, true = _orders(means), _orders(truth)
    agree = ordered * true
    sizes = np.sqrt((ordered != 0).sum(1) * (true != 0).sum(1)).astype(np.float64)
    undefined = np.isnan(agree).any(1)
    tau = np.where(undefined, np.nan, _share(agree.sum(1), sizes))
    return tau, np.where(undefined, np.nan, (agree < 0).sum(1))


def _orders(means: Floats) -> Floats:
    """1, 0 or -1 for each pair of runs, [resample, pair]."""
    first, second = np.triu_indices(means.shape[1], 1)
    return np.sign(means[:, first] - means[:, second])


def pairs_to_order(truth: Floats) -> int:
    """The number of pairs of runs whose true means differ; `truth` is [1, run]."""
    return int((_orders(truth) != 0).sum())
