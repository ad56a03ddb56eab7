"""What a calibration finds about each column, with intervals over cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from zerocon.reports.calibration.measures import (
    Counts,
    Detection,
    correlation_of_runs,
    correlations_within_cases,
    mean_over_cases,
    pairs_to_order,
    ranking_of_runs,
    run_means,
)
from zerocon.reports.comparison import chosen_cases, types_of
from zerocon.reports.estimates import gathered
from zerocon.reports.statistics import Floats, percentiles, resampling
from zerocon.reports.store import Cells
from zerocon.reports.summary import LEVEL, Column

SUCCESS = "edit_success"
PRESERVATION = ("lpips_truth", "psnr_truth")
TRUTHS = (SUCCESS, *PRESERVATION, "ssim_truth")

AUC, AUC_WITHIN, FALSE_PASSES = "AUC", "AUC within case", "false passes"
WITHIN, ACROSS = "Spearman within case", "Spearman across runs"
TAU, WRONG = "Kendall's tau across runs", "pairs of runs in the wrong order"

Key = tuple[str, str]  # measure, the true column that it is held against

FEWEST_CASES = 10
FEWEST_OF_TYPE = 5
_MOST_UNDEFINED = 0.1  # share of resamples in which a number may be undefined


@dataclass(frozen=True)
class Number:
    """An estimate and its interval; nan where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """Everything about one column over one group of cases."""

    column: Column
    edit_type: str  # "" for all cases
    records: int  # with the column and a known success
    cases: int
    successes: int
    cases_within: Mapping[Key, int]  # in which a number within the case is defined
    runs: int  # that are ranked
    pairs: Mapping[str, int]  # true column -> pairs of runs that it orders
    threshold: float  # in the column's unit
    numbers: Mapping[Key, Number]


@dataclass(frozen=True)
class Calibrated:
    """The columns of one block of runs."""

    overall: Sequence[Finding]
    types: Mapping[str, Sequence[Finding]]
    too_small: Sequence[str]  # edit types with too few cases


def calibrated(
    cells: Cells,
    columns: Sequence[Column],
    truths: Sequence[Column],
    groups: Sequence[Sequence[int]],
    *,
    per_type: bool,
    resamples: int,
    seed: int,
) -> Calibrated:
    """Calibrate each column, over all cases and by edit type; `groups` are ranked."""
    kinds = np.array(cells.edit_types)
    sizes = {kind: int((kinds == kind).sum()) for kind in types_of(cells)} if per_type else {}
    large = [kind for kind, size in sizes.items() if size >= FEWEST_OF_TYPE]

    def of(some: Cells, kind: str) -> list[Finding]:
        draws = _draws(len(some.cases), resamples, seed)
        return [_finding(some, column, truths, groups, kind, draws) for column in columns]

    return Calibrated(
        of(cells, ""),
        {kind: of(chosen_cases(cells, kinds == kind), kind) for kind in large},
        [kind for kind in sizes if kind not in large],
    )


def _draws(cases: int, resamples: int, seed: int) -> Counts:
    """All cases once, then how often each is drawn in each resample, [1 + resample, case]."""
    drawn = [np.rint(w * cases).astype(np.int64) for w in resampling(cases, resamples, seed)]
    return np.concatenate([np.ones((1, cases), np.int64), *drawn])


def sign(column: Column) -> float:
    """-1 where lower is better; a column without a better direction is read as higher."""
    return -1.0 if column["better"] == "lower" else 1.0


def _finding(
    cells: Cells,
    column: Column,
    truths: Sequence[Column],
    groups: Sequence[Sequence[int]],
    kind: str,
    draws: Counts,
) -> Finding:
    scores = _scores(cells, column)
    detection = Detection(scores, cells.values[SUCCESS])
    measured = (~np.isnan(scores)).any(0)
    made = _Resampled(draws, int(measured.sum()))
    both = int((detection.successes * detection.failures > 0).sum())
    within: dict[Key, int] = {(AUC_WITHIN, SUCCESS): both}
    made.add((AUC, SUCCESS), detection.auc)
    made.add((AUC_WITHIN, SUCCESS), detection.auc_within, both)
    made.add((FALSE_PASSES, SUCCESS), detection.false_passes)
    pairs: dict[str, int] = {}
    runs = 0
    for truth in truths:
        name, true = str(truth["name"]), _scores(cells, truth)
        if name != SUCCESS:
            found = correlations_within_cases(scores, true)
            within[WITHIN, name] = int((~np.isnan(found)).sum())
            made.add((WITHIN, name), partial(mean_over_cases, found), within[WITHIN, name])
        runs, pairs[name] = made.add_ranking(name, scores, true, groups)
    return Finding(
        column, kind, len(detection.good) + len(detection.bad), int(measured.sum()),
        len(detection.good), within, runs, pairs, sign(column) * detection.threshold(),
        made.numbers,
    )  # fmt: skip


def _scores(cells: Cells, column: Column) -> Floats:
    return sign(column) * cells.values[str(column["name"])]


class _Resampled:
    """Numbers under all draws; the first draw has each case once and gives the estimate."""

    def __init__(self, draws: Counts, cases: int) -> None:
        self.draws, self.cases = draws, cases
        self.numbers: dict[Key, Number] = {}

    def add(self, key: Key, measure: Callable[[Counts], Floats], cases: int | None = None) -> None:
        """`cases`: those in which the number is defined, if not all with the column."""
        self._add(key, measure(self.draws), self.cases if cases is None else cases)

    def add_ranking(
        self, truth: str, scores: Floats, true: Floats, groups: Sequence[Sequence[int]]
    ) -> tuple[int, int]:
        """Compare the rankings of the groups that have both; return their number and pairs."""
        both = [gathered(values, groups) for values in (scores, true)]
        known = np.isfinite(both[0]).any(1) & np.isfinite(both[1]).any(1)
        means, truths = (run_means(values[known], self.draws) for values in both)
        self._add((ACROSS, truth), correlation_of_runs(means, truths), self.cases)
        tau, wrong = ranking_of_runs(means, truths)
        self._add((TAU, truth), tau, self.cases)
        self._add((WRONG, truth), wrong, self.cases)
        return int(known.sum()), pairs_to_order(truths[:1])

    def _add(self, key: Key, values: Floats, cases: int) -> None:
        self.numbers[key] = _number(values, cases)


def _number(values: Floats, cases: int) -> Number:
    """The first value, and percentiles of the others widened to include it."""
    value, drawn = float(values[0]), values[1:]
    drawn = drawn[~np.isnan(drawn)]
    nan = float("nan")
    undefined = 1 - len(drawn) / (len(values) - 1)
    if np.isnan(value) or cases < 2 or undefined > _MOST_UNDEFINED:
        return Number(value, nan, nan)
    low, high = percentiles(drawn[:, None], cases, LEVEL)
    return Number(value, min(float(low[0]), value), max(float(high[0]), value))
