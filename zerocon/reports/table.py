"""`zerocon table`: tables of measured runs, from their records."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from zerocon.core.checks import one_of
from zerocon.reports.evaluation import Evaluation, differences, evaluations
from zerocon.reports.layout import UNLIMITED, Grid, Label, grids, hidden, measurable
from zerocon.reports.names import named
from zerocon.reports.published import SETS, published_grids, published_rows
from zerocon.reports.render import FORMATS, to_csv, write
from zerocon.reports.runs import (
    Run,
    check_field,
    columns_of,
    find_runs,
    natural,
    varying,
)
from zerocon.reports.store import Store
from zerocon.reports.summary import Column, Group, Statistic, Summary

TERMINAL, CSV = "terminal", "csv"
CHOICES = (TERMINAL, *FORMATS, CSV)
_MOST_NAMED = 5  # names that a note lists


@dataclass(frozen=True)
class Line:
    """One row: its runs and their joint summary."""

    runs: Sequence[Run]
    summary: Summary


@dataclass(frozen=True)
class Block:
    """Rows with the same evaluation, whose numbers are comparable."""

    evaluation: Evaluation
    keys: Label
    columns: Sequence[Column]
    lines: Mapping[Label, Line]
    notes: Sequence[str]
    intervals: bool

    def grids(self, *, per_type: bool, width: int, brief: bool = False) -> list[Grid]:
        tables = grids(
            {label: line.summary for label, line in self.lines.items()},
            self.columns,
            per_type,
            width,
            keys=self.keys,
            gathered={label: len(line.runs) for label, line in self.lines.items()},
            brief=brief,
        )
        return _with_notes(tables, self.notes)


def print_table(
    patterns: Sequence[str | Path],
    *,
    rows: Sequence[str] = (),
    metrics: Sequence[str] = (),
    per_type: bool = False,
    intervals: bool = False,
    published: str | None = None,
    form: str = TERMINAL,
    every: bool = True,
) -> None:
    """Print runs, or values of settings, side by side; one table per evaluation.

    Without `every`, a narrow terminal shows the key metrics only.
    """
    one_of("--format", form, CHOICES)
    if published is not None:
        one_of("--published", published, sorted(SETS))
    runs = named(find_runs(patterns))
    if len(patterns) == 1:  # directories in the order of their digests
        runs = sorted(runs, key=lambda run: natural(run.label))
    blocks = measured(runs, rows, metrics, per_type=per_type, intervals=intervals)
    if form == CSV:
        lines = [line for block in blocks for line in csv_rows(block)]
        sys.stdout.write(to_csv([*lines, *_published_rows(published, blocks)]))
        return
    console = Console()
    width = console.width if form == TERMINAL else UNLIMITED
    brief = form == TERMINAL and not every and not metrics
    made = tables_of(blocks, published, per_type=per_type, width=width, brief=brief)
    write(made, form, console)


def measured(
    runs: Sequence[Run],
    rows: Sequence[str] = (),
    metrics: Sequence[str] = (),
    *,
    per_type: bool = False,
    intervals: bool = False,
) -> list[Block]:
    for field in rows:
        check_field(runs, field)
    columns_of(runs, metrics)  # raises if no run has a metric
    return [
        _block(evaluation, several, rows, metrics, per_type, intervals)
        for evaluation, several in evaluations(runs, metrics or None).items()
    ]


def tables_of(
    blocks: Sequence[Block],
    published: str | None = None,
    *,
    per_type: bool,
    width: int,
    brief: bool = False,
) -> list[Grid]:
    tables: list[Grid] = []
    for number, block in enumerate(blocks, 1):
        first, *others = block.grids(per_type=per_type, width=width, brief=brief)
        if len(blocks) > 1:
            first = replace(first, title=_numbered(number, blocks, first.title))
        elif published is not None:
            first = replace(
                first, title=_joined(f"measured on {block.evaluation.dataset}", first.title)
            )
        tables += [first, *others]
    if len(blocks) > 1:
        why = differences(block.evaluation for block in blocks)
        tables = _with_notes(
            tables, [f"{len(blocks)} separate tables, because the runs differ in {why}"]
        )
    if published is not None:
        tables += published_grids(published, _all_columns(blocks), width)
    return tables


def _numbered(number: int, blocks: Sequence[Block], title: str) -> str:
    evaluation = blocks[number - 1].evaluation
    return _joined(f"{number} of {len(blocks)}: {evaluation.title()}", title)


def _joined(first: str, second: str) -> str:
    return f"{first} · {second}" if second else first


def _all_columns(blocks: Sequence[Block]) -> list[Column]:
    return list({str(c["name"]): c for block in blocks for c in block.columns}.values())


def _with_notes(tables: Sequence[Grid], notes: Sequence[str]) -> list[Grid]:
    return [*tables[:-1], replace(tables[-1], notes=[*tables[-1].notes, *notes])]


def _block(
    evaluation: Evaluation,
    runs: Sequence[Run],
    rows: Sequence[str],
    metrics: Sequence[str],
    per_type: bool,
    intervals: bool,
) -> Block:
    all_columns = columns_of(runs)
    columns = [c for c in all_columns if not metrics or c["name"] in metrics]
    gathered = _gathered(runs, rows)
    positions = {id(run): i for i, several in enumerate(gathered.values()) for run in several}
    store = Store(runs, columns)
    places = [positions[id(run)] for run in runs]
    summaries = store.summaries(places, per_type=per_type)
    if intervals:
        from zerocon.reports.estimates import with_intervals  # resampling takes a second to load

        summaries = with_intervals(summaries, store.cells(), places)
    lines = {
        label: Line(several, summary)
        for (label, several), summary in zip(gathered.items(), summaries, strict=True)
    }
    shown = columns if metrics else measurable(columns, summaries)
    notes = [
        *hidden(columns, shown),
        *_gathering_notes(gathered),
        *_unfinished(runs, store.recorded()),
        *_origin_notes(evaluation, runs),
    ]
    return Block(evaluation, tuple(rows) or ("",), shown, lines, notes, intervals)


def _gathered(runs: Sequence[Run], rows: Sequence[str]) -> dict[Label, list[Run]]:
    if not rows:
        return {(run.label,): [run] for run in runs}
    found: dict[Label, list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(run.field(field) for field in rows), []).append(run)
    return dict(sorted(found.items(), key=_naturally))


def _naturally(item: tuple[Label, list[Run]]) -> list[list[tuple[int, float, str]]]:
    return [natural(part) for part in item[0]]


def _gathering_notes(gathered: Mapping[Label, Sequence[Run]]) -> list[str]:
    """Note the settings in which the runs of a row differ, over which it averages."""
    differ = dict.fromkeys(name for runs in gathered.values() for name in varying(runs))
    if not any(len(runs) > 1 for runs in gathered.values()):
        return []
    what = f" over {_named(list(differ))}" if differ else ""
    return [f"where a row has several runs, each case is first averaged{what}; n counts cases"]


def _unfinished(runs: Sequence[Run], recorded: Sequence[int]) -> list[str]:
    left = [
        f"{run.label} ({done} of {len(run.origin.case_ids)})"
        for run, done in zip(runs, recorded, strict=True)
        if done < len(run.origin.case_ids)
    ]
    return [f"not all cases are done yet: {_named(left)}"] if left else []


def _origin_notes(evaluation: Evaluation, runs: Sequence[Run]) -> list[str]:
    backbones = {f"{r.origin.backbone['name']} {r.origin.backbone['fingerprint']}" for r in runs}
    revisions = {_revision(run) for run in runs} - {""}
    notes = [f"{evaluation.words()}; backbone {_named(sorted(backbones))}"]
    if len(revisions) > 1:
        notes.append(f"made by different revisions of the code: {_named(sorted(revisions))}")
    return notes


def _revision(run: Run) -> str:
    git = run.origin.provenance.get("git") or {}
    return str(git.get("revision") or "")[:12]


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def csv_rows(block: Block) -> list[dict[str, object]]:
    """Mean, standard error and n of each metric at full precision; intervals if requested."""
    return [
        {**_csv_start(block, label, line, kind, group), **_csv_numbers(group, block)}
        for label, line in block.lines.items()
        for kind, group in (("all", line.summary.overall), *line.summary.edit_types.items())
    ]


def _csv_start(
    block: Block, label: Label, line: Line, kind: str, group: Group
) -> dict[str, object]:
    evaluation = block.evaluation
    return {
        "kind": "measured",
        **dict(zip((key or "run" for key in block.keys), label, strict=True)),
        **({} if any(block.keys) else {"directory": line.runs[0].directory.name}),
        "edit_type": kind if group.name == kind else f"{kind} {group.name}",
        "runs": len(line.runs),
        "cases": group.cases,
        "failed": group.failed,
        "dataset": evaluation.dataset,
        "dataset fingerprint": evaluation.dataset_fingerprint,
        "pixels": evaluation.resolution,
        "protocol": evaluation.protocol,
        "legacy jpeg": _yes_or_no(evaluation.legacy_jpeg),
        "given the mask": _yes_or_no(evaluation.uses_mask),
        "judges": evaluation.judges_in_words(),
        "backbone": " ".join(sorted({run.origin.backbone["fingerprint"] for run in line.runs})),
    }


def _yes_or_no(said: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[said]


def _csv_numbers(group: Group, block: Block) -> dict[str, object]:
    numbers: dict[str, object] = {}
    for column in block.columns:
        stat = group.metrics.get(str(column["name"]), Statistic(None, None, 0))
        numbers |= _csv_statistic(stat, column)
        if block.intervals:
            low, high = stat.interval or (None, None)
            numbers |= {_in_unit(column, "low"): low, _in_unit(column, "high"): high}
    return numbers


def _csv_statistic(stat: Statistic, column: Column) -> dict[str, object]:
    """With infinite values, the mean is infinite; the finite values' mean has separate columns."""
    name = column["name"]
    mean, error, count = _in_unit(column), _in_unit(column, "s.e."), f"{name} n"
    if not stat.infinite:
        return {mean: stat.mean, error: stat.stderr, count: stat.n}
    return {
        mean: math.inf,
        error: None,
        count: stat.n,
        f"{name} infinite": stat.infinite,
        _in_unit(column, "mean of the finite"): stat.mean,
        _in_unit(column, "s.e. of the finite"): stat.stderr,
    }


def _in_unit(column: Column, what: str = "") -> str:
    unit = f"({column['unit']})" if column["unit"] else ""
    return " ".join(part for part in (str(column["name"]), what, unit) if part)


def _published_rows(name: str | None, blocks: Sequence[Block]) -> list[dict[str, object]]:
    if name is None:
        return []
    table = SETS[name]
    return [
        {
            "kind": "published",
            "run": row.name,
            "dataset": table.dataset,
            "protocol": table.protocol,
            "base model": row.base,
            "reported by": row.source,
            **row.details,
            **({"to run it here": row.here} if table.here else {}),
            **{
                _in_unit(column): row.values[str(column["name"])]
                for column in _all_columns(blocks)
                if column["name"] in row.values
            },
        }
        for row in published_rows(name)
    ]
