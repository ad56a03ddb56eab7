"""`zerocon calibrate`: how well metrics predict the truth, printed and drawn."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from zerocon.core.checks import ConfigError, one_of
from zerocon.core.text import counted
from zerocon.reports.calibration.blocks import Block, blocks_of
from zerocon.reports.calibration.findings import (
    ACROSS,
    AUC,
    AUC_WITHIN,
    FALSE_PASSES,
    FEWEST_OF_TYPE,
    SUCCESS,
    TAU,
    WITHIN,
    WRONG,
    Calibrated,
    Finding,
    Key,
    Number,
    calibrated,
)
from zerocon.reports.calibration.measures import FEWEST_RECORDS, FEWEST_RUNS, PASSING
from zerocon.reports.calibration.plot import Panel, draw
from zerocon.reports.comparison import named_few
from zerocon.reports.layout import NOTHING, UNLIMITED, Cell, Grid, label, wrapped
from zerocon.reports.names import named
from zerocon.reports.render import to_csv, write
from zerocon.reports.runs import Run, check_field, find_runs
from zerocon.reports.summary import LEVEL
from zerocon.reports.table import CHOICES, CSV, TERMINAL

RESAMPLES = 2_000


@dataclass(frozen=True)
class Result:
    """A block of runs and what was found."""

    block: Block
    ranked: Sequence[Sequence[int]]  # the runs of each place in the rankings
    found: Calibrated


def calibrate(
    patterns: Sequence[str | Path],
    *,
    metrics: Sequence[str] = (),
    by: Sequence[str] = (),
    per_type: bool = False,
    intersection: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    plot: Path | None = None,
    form: str = TERMINAL,
) -> None:
    """Print how well each metric predicts the truth, and draw it."""
    one_of("--format", form, CHOICES)
    if resamples < 100:
        raise ConfigError(f"--resamples is {resamples}; an interval needs at least 100")
    runs = named(find_runs(patterns))
    for field in by:
        check_field(runs, field)
    results = [
        _result(block, by, per_type, resamples, seed)
        for block in blocks_of(runs, metrics, intersection=intersection)
    ]
    if plot is not None:
        draw(plot, [panel_of(result) for result in results])
    if form == CSV:
        sys.stdout.write(to_csv([row for result in results for row in _csv_rows(result)]))
        return
    console = Console()
    width = console.width if form == TERMINAL else UNLIMITED
    tables = [g for r in results for g in _grids(r, by, width, len(results) > 1)]
    notes = [*tables[-1].notes, *_about_intervals(resamples, seed)]
    notes += [f"drawn in {plot}"] if plot is not None else []
    write([*tables[:-1], replace(tables[-1], notes=notes)], form, console)


def _result(block: Block, by: Sequence[str], per_type: bool, resamples: int, seed: int) -> Result:
    ranked = _ranked(block.runs, by)
    found = calibrated(
        block.cells, block.columns, block.truths, ranked,
        per_type=per_type, resamples=resamples, seed=seed,
    )  # fmt: skip
    return Result(block, ranked, found)


def _ranked(runs: Sequence[Run], by: Sequence[str]) -> list[list[int]]:
    """The positions of the runs of each place in the rankings: each run, or values of settings."""
    places: dict[tuple[str, ...], list[int]] = {}
    for position, run in enumerate(runs):
        key = tuple(run.field(name) for name in by) if by else (str(position),)
        places.setdefault(key, []).append(position)
    return list(places.values())


def panel_of(result: Result) -> Panel:
    truth = _main_truth(result)
    found = [f for f in result.found.overall if not np.isnan(f.numbers[AUC, SUCCESS].value)]
    return Panel(
        title=result.block.evaluation.title(),
        names=[label(f.column) for f in found],
        auc=[_triple(f, (AUC, SUCCESS)) for f in found],
        within=[_triple(f, (WITHIN, truth)) for f in found],
        truth=truth,
    )


def _triple(finding: Finding, key: Key) -> tuple[float, float, float]:
    number = finding.numbers.get(key, _UNKNOWN)
    return number.value, number.low, number.high


def _main_truth(result: Result) -> str:
    names = _preservation(result)
    return names[0] if names else ""


def _preservation(result: Result) -> list[str]:
    return [str(truth["name"]) for truth in result.block.truths if truth["name"] != SUCCESS]


_UNKNOWN = Number(float("nan"), float("nan"), float("nan"))


def _grids(result: Result, by: Sequence[str], width: int, several: bool) -> list[Grid]:
    tables = [
        *_success(result, width),
        *_within(result, width),
        *_rankings(result, width),
        *_types(result, width),
    ]
    if several:
        about = result.block.evaluation.title()
        tables[0] = replace(tables[0], title=f"{about}: {tables[0].title}")
    return [*tables[:-1], replace(tables[-1], notes=[*tables[-1].notes, *_notes(result, by)])]


def _success(result: Result, width: int) -> list[Grid]:
    cells = {
        "AUC": (AUC, SUCCESS),
        "AUC\nwithin case": (AUC_WITHIN, SUCCESS),
        "false passes": (FALSE_PASSES, SUCCESS),
    }
    found = _sorted(result.found.overall, (AUC, SUCCESS))
    columns = {title: [_cell(f.numbers[key]) for f in found] for title, key in cells.items()}
    columns["threshold"] = [Cell(_threshold(f)) for f in found]
    block = result.block
    said = [
        (
            f"{counted(block.records, 'record')} of {counted(len(block.cells.cases), 'case')} in "
            f"{counted(len(block.runs), 'run')}: {counted(block.successes, 'edit')} succeeded, "
            f"{block.records - block.successes:,} failed"
        ),
        (
            "AUC: how often a success scores better than a failed edit, of any case or of the "
            "same one; false passes: share of the failed edits that pass the threshold that "
            f"{PASSING} % of the successes pass; without knowledge: 0.5 and {PASSING / 100:.2f}"
        ),
        *_few(result),
    ]
    return _laid_out(f"Does it know whether the edit succeeded ({SUCCESS})?", found, columns,
                     width, said)  # fmt: skip


def _few(result: Result) -> list[str]:
    block, first = result.block, result.found.overall[0]
    said: list[str] = []
    if block.successes in (0, block.records):
        outcome = "succeeded" if block.successes else "failed"
        said.append(f"no AUC and no false passes: every edit {outcome}")
    elif not any(f.cases_within[AUC_WITHIN, SUCCESS] for f in result.found.overall):
        said.append("no AUC within case: no case has both a successful and a failed edit")
    fewer = [f for f in result.found.overall if f.records < block.records]
    if fewer:
        counts = ", ".join(f"{f.column['name']} {f.records:,}" for f in fewer)
        said.append(f"columns with fewer records: {counts}")
    if first.runs < FEWEST_RUNS:
        said.append(f"no ranking: it needs {FEWEST_RUNS} runs or settings, there are {first.runs}")
    return said


def _within(result: Result, width: int) -> list[Grid]:
    names = _preservation(result)
    if not names:
        return []
    found = _sorted(result.found.overall, (WITHIN, names[0]))
    columns = {
        f"{name}\n{where}": [_cell(f.numbers[measure, name]) for f in found]
        for measure, where in ((WITHIN, "within case"), (ACROSS, "across runs"))
        for name in names
    }
    counts = [f.cases_within[WITHIN, names[0]] for f in found]
    said = [
        (
            "Spearman's rank correlation, 1: the same order as the truth's; over the records of a "
            "case, then averaged over cases; and over the runs' means"
        )
    ]
    if not any(counts):
        said.append(
            f"no correlation within case: no case has {FEWEST_RECORDS} records that differ in "
            f"{names[0]}"
        )
    return _laid_out("Does it know how near the edit is to the true one?", found, columns,
                     width, said)  # fmt: skip


def _rankings(result: Result, width: int) -> list[Grid]:
    names = [SUCCESS, *_preservation(result)[:1]]
    if all(f.runs < FEWEST_RUNS for f in result.found.overall):
        return []
    found = _sorted(result.found.overall, (TAU, SUCCESS))
    columns: dict[str, list[Cell]] = {}
    for name in names:
        columns[f"{name}\ntau"] = [_cell(f.numbers[TAU, name]) for f in found]
        columns[f"{name}\nwrong pairs"] = [Cell(_wrong(f, name)) for f in found]
    if len({f.runs for f in found}) > 1:
        columns["ranked"] = [Cell(str(f.runs)) for f in found]
    said = [
        (
            "ranking by the column's mean against ranking by the true mean: Kendall's tau-b, and "
            "the pairs in the wrong order, of those whose true means differ"
        )
    ]
    return _laid_out("Does it rank the runs as the truth does?", found, columns, width, said)


def _wrong(finding: Finding, truth: str) -> str:
    number = finding.numbers[WRONG, truth]
    if np.isnan(number.value):
        return NOTHING
    between = "" if np.isnan(number.low) else f" [{number.low:.0f}, {number.high:.0f}]"
    return f"{number.value:.0f}{between} of {finding.pairs[truth]}"


def _types(result: Result, width: int) -> list[Grid]:
    keys: list[tuple[str, Key]] = [
        ("AUC by edit type", (AUC, SUCCESS)),
        ("False passes by edit type", (FALSE_PASSES, SUCCESS)),
    ]
    keys += [
        (f"Correlation with {name} within case, by edit type", (WITHIN, name))
        for name in _preservation(result)[:1]
    ]
    return [grid for title, key in keys for grid in _of_types(result, title, key, width)]


def _of_types(result: Result, title: str, key: Key, width: int) -> list[Grid]:
    numbers = [f.numbers[key].value for several in result.found.types.values() for f in several]
    if np.isnan(numbers).all():
        return []
    found = _sorted(result.found.overall, key)
    order = [f.column["name"] for f in found]
    columns: dict[str, list[Cell]] = {"all": [_cell(f.numbers[key]) for f in found]}
    for kind, several in result.found.types.items():
        by_name = {f.column["name"]: f for f in several}
        columns[_type_title(result, kind)] = [_cell(by_name[n].numbers[key]) for n in order]
    return _laid_out(title, found, columns, width, [])


def _type_title(result: Result, kind: str) -> str:
    name = result.block.cells.edit_names.get(kind, kind)
    cases = result.block.cells.edit_types.count(kind)
    return f"{kind if name == kind else f'{kind} {name}'}\n{counted(cases, 'case')}"


def _laid_out(
    title: str,
    found: Sequence[Finding],
    columns: Mapping[str, Sequence[Cell]],
    width: int,
    notes: Sequence[str],
) -> list[Grid]:
    names = [(label(f.column),) for f in found]
    made = wrapped(title, ("column",), names, (), [[] for _ in names], columns, width)
    return [*made[:-1], replace(made[-1], notes=notes)]


def _sorted(found: Sequence[Finding], key: Key) -> list[Finding]:
    """The best first; columns without the number last."""
    direction = 1 if key[0] == FALSE_PASSES else -1
    values = [direction * f.numbers[key].value for f in found]
    return [found[i] for i in np.argsort(values, kind="stable")]  # nan comes last


def _cell(number: Number) -> Cell:
    if np.isnan(number.value):
        return Cell(NOTHING)
    between = "" if np.isnan(number.low) else f" [{number.low:.2f}, {number.high:.2f}]"
    return Cell(f"{number.value:.2f}{between}")


def _threshold(finding: Finding) -> str:
    if np.isnan(finding.threshold):
        return NOTHING
    relation = "≤" if finding.column["better"] == "lower" else "≥"
    return f"{relation} {finding.threshold:.{int(finding.column['digits'])}f}"


def _notes(result: Result, by: Sequence[str]) -> list[str]:
    block = result.block
    few = [f"{kind} {block.cells.edit_names.get(kind, '')}".strip()
           for kind in result.found.too_small]  # fmt: skip
    return [
        *block.notes,
        *([f"edit types with fewer than {FEWEST_OF_TYPE} cases, not shown: {named_few(few)}"]
          if few else []),
        *([f"ranked: the values of {', '.join(by)}, each case averaged over their runs"]
          if by else []),
        block.evaluation.words(),
    ]  # fmt: skip


def _about_intervals(resamples: int, seed: int) -> list[str]:
    return [
        (
            f"[{LEVEL:.0%} intervals] from {resamples:,} resamples of the cases, each with its "
            f"records of all runs, seed {seed}"
        )
    ]


def _csv_rows(result: Result) -> list[dict[str, object]]:
    """Full precision: a line for each number of each column."""
    found = [
        *result.found.overall,
        *(f for several in result.found.types.values() for f in several),
    ]
    return [
        {"evaluation": result.block.evaluation.title(), **_csv_row(finding, key, number)}
        for finding in found
        for key, number in finding.numbers.items()
    ]


def _csv_row(finding: Finding, key: Key, number: Number) -> dict[str, object]:
    measure, truth = key
    return {
        "edit_type": finding.edit_type or "all",
        "column": finding.column["name"],
        "better": finding.column["better"],
        "measure": measure,
        "truth": truth,
        "value": number.value,
        "low": number.low,
        "high": number.high,
        "records": finding.records,
        "cases": finding.cases_within.get(key, finding.cases),
        "successes": finding.successes,
        "runs ranked": finding.runs,
        "pairs": finding.pairs.get(truth) if measure in (TAU, WRONG) else None,
        "threshold": finding.threshold if measure == FALSE_PASSES else None,
    }
