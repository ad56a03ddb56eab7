"""`zerocon compare`: paired comparisons of runs over the same cases, with a verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from zerocon.core.checks import ConfigError, one_of
from zerocon.reports.evaluation import differences, evaluation_of, evaluations
from zerocon.reports.layout import NOTHING, UNLIMITED, Cell, Grid, label, wrapped
from zerocon.reports.margins import Margin, margins_of
from zerocon.reports.names import named
from zerocon.reports.render import to_csv, write
from zerocon.reports.runs import Run, columns_of, find_runs, natural
from zerocon.reports.statistics import Floats, Paired, holm, mean_of, paired
from zerocon.reports.store import Cells, Store
from zerocon.reports.summary import LEVEL, RESAMPLES, Column
from zerocon.reports.table import CHOICES, CSV, TERMINAL

ALPHA = 1 - LEVEL
EFFECTS = ((0.8, "large"), (0.5, "medium"), (0.2, "small"), (0.0, "tiny"))  # after Cohen
_MOST_NAMED = 5


@dataclass(frozen=True)
class Result:
    """One metric of two runs over one group of cases."""

    column: Column
    edit_type: str  # "" for all cases
    first: float  # the baseline's mean over the pairs
    second: float
    paired: Paired
    p: float  # corrected for multiple tests
    wins: int  # cases in which the second run is better, or higher if neither direction is better
    ties: int
    losses: int
    infinite: tuple[int, int] = (0, 0)  # pairs with an infinite value: of the baseline, of the run

    @property
    def verdict(self) -> str:
        """Return the conclusion that the data support, in words."""
        test = self.paired
        if np.isnan(self.p):
            return "too few pairs to say"
        apart = test.low > 0 or test.high < 0
        if self.p >= ALPHA and not apart:
            return "no difference shown"
        if self.p >= ALPHA:
            return f"not clear: 0 outside the interval, p ≥ {ALPHA:.2g}"
        if not apart:
            return f"not clear: 0 in the interval, p < {ALPHA:.2g}"
        return f"{self._direction()}, {_size(test.effect)} effect"

    @property
    def supported(self) -> bool:
        return self.verdict.startswith(("better", "worse", "higher", "lower"))

    def _direction(self) -> str:
        higher = self.paired.effect > 0
        if not self.column["better"]:
            return "higher" if higher else "lower"
        return "better" if higher == (self.column["better"] == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    baseline: Run
    other: Run
    results: Sequence[Result]


def compare(
    patterns: Sequence[str | Path],
    *,
    metrics: Sequence[str] = (),
    per_type: bool = False,
    intersection: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    form: str = TERMINAL,
    margins: Sequence[str] = (),
) -> None:
    """Print the differences of each run from the first one."""
    one_of("--format", form, CHOICES)
    if resamples < 100:
        raise ConfigError(f"--resamples is {resamples}; an interval needs at least 100")
    runs = named(find_runs(patterns))
    if len(runs) < 2:
        raise ConfigError("a comparison needs two runs or more; the first is the baseline")
    columns = _columns(runs, metrics)
    limits = margins_of(margins, [str(c["name"]) for c in columns if c["better"]])
    cells, notes = same_cases(runs, columns, intersection=intersection)
    made = comparisons(runs, columns, cells, per_type=per_type, resamples=resamples, seed=seed)
    if form == CSV:
        sys.stdout.write(to_csv(_csv_rows(made)))
        return
    console = Console()
    width = console.width if form == TERMINAL else UNLIMITED
    tables = [grid for one in made for grid in _grids(one, cells, width)]
    allowed = [said for one in made for said in _within(one, limits)]
    notes = [*allowed, *_method(made, resamples, seed), *notes, evaluation_of(runs[0]).words()]
    write([*tables[:-1], replace(tables[-1], notes=notes)], form, console)


def _within(one: Comparison, limits: Sequence[Margin]) -> list[str]:
    """For each margin, whether the run keeps within it over all cases."""
    found = {result.column["name"]: result for result in one.results if not result.edit_type}
    return [
        f"{one.other.label}, "
        + limit.words(result.first, result.paired, result.column["better"], _decided(result))
        for limit in limits
        if (result := found.get(limit.metric)) is not None
    ]


def _decided(result: Result) -> tuple[int, int] | None:
    """How many pairs got better and worse, of a metric that is 0 or 1 in every case."""
    counts = result.wins, result.losses
    test, in_shares = result.paired, not result.column["unit"]
    whole = math.isclose(abs(test.mean) * test.n, abs(counts[0] - counts[1]), abs_tol=1e-6)
    return counts if in_shares and whole and 0 <= result.first <= 1 else None


def _columns(runs: Sequence[Run], metrics: Sequence[str]) -> list[Column]:
    """Return the requested metrics; by default all with a better direction."""
    columns = columns_of(runs, metrics)
    return columns if metrics else [column for column in columns if column["better"]]


def same_cases(
    runs: Sequence[Run], columns: Sequence[Column], *, intersection: bool
) -> tuple[Cells, list[str]]:
    """Return the values of the cases that all runs have, and notes about the others.

    Refuses runs with different evaluations and, without `intersection`, runs over different
    cases.
    """
    found = list(evaluations(runs, [str(column["name"]) for column in columns]))
    kinds = [replace(kind, dataset_fingerprint="", uses_mask=None) for kind in found]
    if len(set(kinds)) > 1:
        raise ConfigError(f"the runs can't be compared, they differ in {differences(kinds)}")
    store = Store(runs, columns, prompts=True)
    cells = store.cells()
    missing = _missing(runs, cells)
    if missing and not intersection:
        raise ConfigError(
            f"the runs are not over the same cases: {'; '.join(missing)}. "
            "--intersection compares the cases that all have"
        )
    contents = {kind.dataset_fingerprint for kind in found}
    if not missing and not intersection and len(contents) > 1:
        raise ConfigError(
            "the runs' cases have the same names, but the dataset's content changed between "
            "them (its fingerprints differ); --intersection compares them nevertheless"
        )
    changed = store.cases_of_two_meanings()
    if changed:
        raise ConfigError(
            f"the prompts of these cases differ between the runs: {named_few(changed)}"
        )
    shared = np.asarray(cells.recorded.all(0))
    if not shared.any():
        raise ConfigError("the runs have no case in common")
    said = [f"only the {shared.sum()} cases that all runs have; {m}" for m in missing]
    return chosen_cases(cells, shared), [*said, *_failed(runs, cells), *_given_masks(runs)]


def _missing(runs: Sequence[Run], cells: Cells) -> list[str]:
    lacking = [~recorded for recorded in cells.recorded]
    return [
        f"{run.label} lacks {lacks.sum()} of {len(cells.cases)} ({named_few(_names(cells, lacks))})"
        for run, lacks in zip(runs, lacking, strict=True)
        if lacks.any()
    ]


def _names(cells: Cells, chosen: NDArray[np.bool_]) -> list[str]:
    return [case for case, is_chosen in zip(cells.cases, chosen, strict=True) if is_chosen]


def named_few(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def chosen_cases(cells: Cells, which: NDArray[np.bool_]) -> Cells:
    return replace(
        cells,
        cases=_names(cells, which),
        edit_types=[t for t, is_chosen in zip(cells.edit_types, which, strict=True) if is_chosen],
        recorded=cells.recorded[:, which],
        ok=cells.ok[:, which],
        values={name: values[:, which] for name, values in cells.values.items()},
    )


def _failed(runs: Sequence[Run], cells: Cells) -> list[str]:
    return [
        f"{failed.sum()} failed in {run.label} and are in no pair: "
        f"{named_few(_names(cells, failed))}"
        for run, failed in zip(runs, cells.recorded & ~cells.ok, strict=True)
        if failed.any()
    ]


def _given_masks(runs: Sequence[Run]) -> list[str]:
    """Note if only some of the methods had the benchmark's mask, or if that is unknown."""
    given = [run.label for run in runs if run.origin.uses_mask]
    unknown = [run.label for run in runs if run.origin.uses_mask is None]
    said = [f"unknown whether {named_few(unknown)} had the mask"] if unknown else []
    if 0 < len(given) < len(runs) - len(unknown):
        return [f"not a fair comparison: only {named_few(given)} had the mask", *said]
    return [*([f"{named_few(given)} had the mask"] if given and unknown else []), *said]


def comparisons(
    runs: Sequence[Run],
    columns: Sequence[Column],
    cells: Cells,
    *,
    per_type: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Comparison]:
    """Compare each run with the first. Tests in one table are corrected together:
    the metrics over all cases of all runs; the metrics of all edit types of all runs."""
    made: dict[int, list[Result]] = {position: [] for position in range(1, len(runs))}
    for kinds in ([""], types_of(cells) if per_type else []):
        asked = [(other, kind, column) for other in made for kind in kinds for column in columns]
        for (other, _, _), result in zip(
            asked, _family(cells, asked, resamples, seed), strict=True
        ):
            made[other].append(result)
    return [Comparison(runs[0], runs[other], results) for other, results in made.items()]


def types_of(cells: Cells) -> list[str]:
    return sorted(set(cells.edit_types) - {""}, key=natural)


def _family(
    cells: Cells, asked: Sequence[tuple[int, str, Column]], resamples: int, seed: int
) -> list[Result]:
    """Return results whose p values are corrected together."""
    if not asked:
        return []
    pairs = [_pairs(cells, *question) for question in asked]
    changes = np.stack([_changes(*pair) for pair in pairs], axis=1)  # [case, question]
    tests = paired(changes, resamples=resamples, seed=seed)
    corrected = holm(np.array([test.p for test in tests]))
    return [
        _result(kind, column, *both, test, float(p))
        for (_, kind, column), both, test, p in zip(asked, pairs, tests, corrected, strict=True)
    ]


def _pairs(cells: Cells, other: int, kind: str, column: Column) -> tuple[Floats, Floats]:
    """Return the baseline's and the other run's values, nan in both where there is no pair."""
    values = cells.values[str(column["name"])]
    there = ~np.isnan(values[0]) & ~np.isnan(values[other])
    if kind:
        there &= np.array(cells.edit_types) == kind
    return np.where(there, values[0], np.nan), np.where(there, values[other], np.nan)


def _changes(first: Floats, second: Floats) -> Floats:
    """Second minus first; two infinite values are equal."""
    changes = np.zeros_like(first)
    return np.subtract(second, first, out=changes, where=first != second)


def _result(
    kind: str, column: Column, first: Floats, second: Floats, test: Paired, p: float
) -> Result:
    change = _changes(first, second)[~np.isnan(first)]
    better = -change if column["better"] == "lower" else change
    visible = 0.5 * 10.0 ** -int(column["digits"])  # smaller differences are ties
    wins, losses = int((better >= visible).sum()), int((better <= -visible).sum())
    mean, other = (mean_of(values[~np.isnan(values)]) for values in (first, second))
    infinite = int(np.isinf(first).sum()), int(np.isinf(second).sum())
    ties = test.n - wins - losses
    return Result(column, kind, mean, other, test, p, wins, ties, losses, infinite)


def _size(effect: float) -> str:
    return next(word for least, word in EFFECTS if abs(effect) >= least)


def _grids(comparison: Comparison, cells: Cells, width: int) -> list[Grid]:
    """One table for all cases and one for each edit type."""
    base, other = comparison.baseline.label, comparison.other.label
    kinds = dict.fromkeys(result.edit_type for result in comparison.results)
    return [
        grid
        for kind in kinds
        for grid in _grid(
            f"{other} against {base}{_titled(kind, cells)}",
            [result for result in comparison.results if result.edit_type == kind],
            width,
        )
    ]


def _titled(kind: str, cells: Cells) -> str:
    name = cells.edit_names.get(kind, kind)
    return "" if not kind else f" · {kind} {name}" if name != kind else f" · {kind}"


def _grid(title: str, results: Sequence[Result], width: int) -> list[Grid]:
    """The numbers and the verdict in one table, or in two where they do not fit."""
    names = [(label(result.column),) for result in results]
    cells = {
        "baseline": [_number(r, r.first) for r in results],
        "this run": [_number(r, r.second) for r in results],
        f"difference\n[{LEVEL:.0%} interval]": [_difference(r) for r in results],
        "effect\nd": [Cell(_plain(r.paired.effect, 2)) for r in results],
        "p\n(Holm)": [Cell(_p(r.p)) for r in results],
        "win/tie/loss\nof n": [
            Cell(f"{r.wins}/{r.ties}/{r.losses} of {r.paired.n}") for r in results
        ],
        "verdict": [Cell(r.verdict) for r in results],
    }
    return wrapped(title, ("metric",), names, (), [[] for _ in results], cells, width)


def _number(result: Result, number: float) -> Cell:
    return Cell(_plain(number, int(result.column["digits"])))


def _difference(result: Result) -> Cell:
    digits = int(result.column["digits"]) + 1  # differences are smaller than values
    test = result.paired
    if test.by_ranks or not np.isfinite(test.low):
        return Cell(_plain(test.mean, digits, "+"))
    return Cell(f"{test.mean:+.{digits}f} [{test.low:+.{digits}f}, {test.high:+.{digits}f}]")


def _plain(number: float, digits: int, sign: str = "") -> str:
    if np.isinf(number):
        return f"{sign}∞" if number > 0 else "−∞"
    return NOTHING if np.isnan(number) else f"{number:{sign}.{digits}f}"


def _p(p: float) -> str:
    return NOTHING if np.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdicts(comparison: Comparison) -> str:
    """Return all verdicts over all cases as one sentence."""
    overall = [result for result in comparison.results if not result.edit_type]
    supported = [
        f"{r.column['name']} ({r.verdict.split(',')[0]}{_infinite(r)})"
        for r in overall
        if r.supported
    ]
    others: dict[str, list[str]] = {}
    for result in overall:
        if not result.supported:
            said = f" ({_infinite(result)[2:]})" if any(result.infinite) else ""
            name = f"{result.column['name']}{said}"
            others.setdefault(result.verdict.partition(":")[0], []).append(name)
    start = f"a difference in {', '.join(supported)}" if supported else "no difference"
    rest = "".join(f"; {verdict}: {', '.join(names)}" for verdict, names in others.items())
    names = f"{comparison.other.label} against {comparison.baseline.label}"
    return f"{names}: the data support {start}{rest}"


def _infinite(result: Result) -> str:
    """Note the number of infinite values among the pairs."""
    baseline, run = result.infinite
    if not (baseline or run):
        return ""
    return f"; infinite in {run} of {result.paired.n} pairs, the baseline in {baseline}"


def _method(made: Sequence[Comparison], resamples: int, seed: int) -> list[str]:
    tests = sum(result.edit_type == "" for one in made for result in one.results)
    typed = any(result.edit_type for one in made for result in one.results)
    among = " over all cases; the tests of the edit types are corrected together" if typed else ""
    means = "differences are means over pairs of the same case; intervals are from "
    effect = "effect d: mean difference / its standard deviation over cases; "
    return [
        *map(_verdicts, made),
        *_about_infinite(made),
        f"{means}{resamples} resamples of the cases, seed {seed}",
        f"p: Wilcoxon's signed-rank test, corrected by Holm for {tests} tests{among}",
        f"{effect}a tie is a difference too small for the table's digits",
    ]


def _about_infinite(made: Sequence[Comparison]) -> list[str]:
    if not any(result.paired.by_ranks for one in made for result in one.results):
        return []
    return [
        (
            "an infinite value (the PSNR of an untouched background) wins its pair and ranks "
            "highest; where only one value of a pair is infinite, effect and verdict are computed "
            "from the signed ranks of the differences"
        )
    ]


def _csv_rows(made: Sequence[Comparison]) -> list[dict[str, object]]:
    """Full precision, a line for each metric of each comparison."""
    return [
        {"baseline": one.baseline.label, "run": one.other.label, **_csv_row(result)}
        for one in made
        for result in one.results
    ]


def _csv_row(result: Result) -> dict[str, object]:
    test, column = result.paired, result.column
    low, high = (None, None) if test.by_ranks else (test.low, test.high)
    return {
        "edit_type": result.edit_type or "all",
        "metric": column["name"],
        "unit": column["unit"],
        "better": column["better"],
        "n": test.n,
        "baseline mean": result.first,
        "run mean": result.second,
        "difference": test.mean,
        "low": low,
        "high": high,
        "effect d": test.effect,
        "p": test.p,
        "p (Holm)": result.p,
        "wins": result.wins,
        "ties": result.ties,
        "losses": result.losses,
        "verdict": result.verdict,
        "baseline infinite": result.infinite[0],
        "run infinite": result.infinite[1],
        "effect and verdict by ranks": "yes" if test.by_ranks else "no",
    }
