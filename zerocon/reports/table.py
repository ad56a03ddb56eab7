"""`zerocon table`: measured runs as tables, from their records alone."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from zerocon.core.checks import one_of
from zerocon.reports.layout import UNLIMITED, Grid, Label, grids
from zerocon.reports.published import SETS, published_grids, published_rows
from zerocon.reports.render import FORMATS, write
from zerocon.reports.runs import (
    Run,
    Sort,
    check_field,
    columns_of,
    differences,
    find_runs,
    natural,
    sorts,
    varying,
)
from zerocon.reports.store import Store
from zerocon.reports.summary import Column, Group, Statistic, Summary

TERMINAL, CSV = "terminal", "csv"
CHOICES = (TERMINAL, *FORMATS, CSV)
_MOST_NAMED = 5  # what a note lists by name


@dataclass(frozen=True)
class Line:
    """One row: the runs it gathers and what they say together."""

    runs: Sequence[Run]
    summary: Summary


@dataclass(frozen=True)
class Block:
    """The rows of one sort: their numbers may be compared."""

    sort: Sort
    keys: Label
    columns: Sequence[Column]
    lines: Mapping[Label, Line]
    notes: Sequence[str]
    intervals: bool

    def grids(self, *, per_type: bool, width: int) -> list[Grid]:
        tables = grids(
            {label: line.summary for label, line in self.lines.items()},
            self.columns,
            per_type,
            width,
            keys=self.keys,
            gathered={label: len(line.runs) for label, line in self.lines.items()},
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
) -> None:
    """Runs, or the values of settings, side by side. Different sorts get different tables."""
    one_of("--format", form, CHOICES)
    if published is not None:
        one_of("--published", published, sorted(SETS))
    runs = find_runs(patterns)
    blocks = measured(runs, rows, metrics, per_type=per_type, intervals=intervals)
    if form == CSV:
        sys.stdout.write("\n".join([*map(csv_of, blocks), *_published_csv(published, blocks)]))
        return
    console = Console()
    width = console.width if form == TERMINAL else UNLIMITED
    write(tables_of(blocks, published, per_type=per_type, width=width), form, console)


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
    columns_of(runs, metrics)  # a metric that no run has
    return [
        _block(s, of_sort, rows, metrics, per_type, intervals) for s, of_sort in sorts(runs).items()
    ]


def tables_of(
    blocks: Sequence[Block], published: str | None = None, *, per_type: bool, width: int
) -> list[Grid]:
    tables: list[Grid] = []
    for number, block in enumerate(blocks, 1):
        first, *others = block.grids(per_type=per_type, width=width)
        if len(blocks) > 1:
            first = replace(first, title=_numbered(number, blocks, first.title))
        elif published is not None:
            first = replace(first, title=_joined(f"measured on {block.sort.dataset}", first.title))
        tables += [first, *others]
    if len(blocks) > 1:
        why = differences([block.sort for block in blocks])
        tables = _with_notes(
            tables, [f"{len(blocks)} tables and not one: the runs differ in {why}"]
        )
    if published is not None:
        tables += published_grids(published, _all_columns(blocks), width)
    return tables


def _numbered(number: int, blocks: Sequence[Block], title: str) -> str:
    sort = blocks[number - 1].sort
    given = ", given the mask" if sort.uses_mask else ""
    return _joined(
        f"{number} of {len(blocks)}: {sort.dataset}, protocol {sort.protocol}{given}", title
    )


def _joined(first: str, second: str) -> str:
    return f"{first} · {second}" if second else first


def _all_columns(blocks: Sequence[Block]) -> list[Column]:
    return list({str(c["name"]): c for block in blocks for c in block.columns}.values())


def _with_notes(tables: Sequence[Grid], notes: Sequence[str]) -> list[Grid]:
    return [*tables[:-1], replace(tables[-1], notes=[*tables[-1].notes, *notes])]


def _block(
    sort: Sort,
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
    notes = [
        *_gathering_notes(gathered),
        *_unfinished(runs, store.recorded()),
        *_origin_notes(sort, runs),
    ]
    return Block(sort, tuple(rows) or ("",), columns, lines, notes, intervals)


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
    """In what the runs of one row differ: their mean is over that, too."""
    differ = dict.fromkeys(name for runs in gathered.values() for name in varying(runs))
    if not any(len(runs) > 1 for runs in gathered.values()):
        return []
    what = f" over {_named(list(differ))}" if differ else ""
    return [f"a row of several runs averages each case{what} first; n counts cases"]


def _unfinished(runs: Sequence[Run], recorded: Sequence[int]) -> list[str]:
    left = [
        f"{run.label} ({done} of {len(run.origin.case_ids)})"
        for run, done in zip(runs, recorded, strict=True)
        if done < len(run.origin.case_ids)
    ]
    return [f"not all cases are done yet: {_named(left)}"] if left else []


def _origin_notes(sort: Sort, runs: Sequence[Run]) -> list[str]:
    backbones = {f"{r.origin.backbone['name']} {r.origin.backbone['fingerprint']}" for r in runs}
    revisions = {_revision(run) for run in runs} - {""}
    notes = [f"{sort.words()}; backbone {_named(sorted(backbones))}"]
    if len(revisions) > 1:
        notes.append(f"made by different revisions of the code: {_named(sorted(revisions))}")
    return notes


def _revision(run: Run) -> str:
    git = run.origin.provenance.get("git") or {}
    return str(git.get("revision") or "")[:12]


def _named(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def csv_of(block: Block) -> str:
    """Full precision: of each metric mean, standard error and n, and the interval if asked for."""
    header = ["kind", *(key or "run" for key in block.keys), "edit_type"]
    header += ["runs", "cases", "failed", "dataset", "protocol", "judges", "backbone"]
    for column in block.columns:
        unit = f" ({column['unit']})" if column["unit"] else ""
        header += [f"{column['name']}{unit}", f"{column['name']} s.e.{unit}", f"{column['name']} n"]
        if block.intervals:
            header += [f"{column['name']} {end}{unit}" for end in ("low", "high")]
    lines = [
        [*_csv_start(block, label, line, kind, group), *_csv_numbers(group, block)]
        for label, line in block.lines.items()
        for kind, group in (("all", line.summary.overall), *line.summary.edit_types.items())
    ]
    return _csv([header, *lines])


def _csv_start(block: Block, label: Label, line: Line, kind: str, group: Group) -> list[object]:
    judges = " ".join(f"{metric}:{judge}" for metric, judge in block.sort.judges)
    backbones = " ".join(sorted({run.origin.backbone["fingerprint"] for run in line.runs}))
    name = kind if group.name == kind else f"{kind} {group.name}"
    counts = [len(line.runs), group.cases, group.failed]
    sort = block.sort
    return ["measured", *label, name, *counts, sort.dataset, sort.protocol, judges, backbones]


def _csv_numbers(group: Group, block: Block) -> list[object]:
    nothing = Statistic(None, None, 0)
    numbers: list[object] = []
    for column in block.columns:
        stat = group.metrics.get(str(column["name"]), nothing)
        numbers += [stat.mean, stat.stderr, stat.n]
        if block.intervals:
            numbers += stat.interval or (None, None)
    return numbers


def _published_csv(name: str | None, blocks: Sequence[Block]) -> list[str]:
    if name is None:
        return []
    columns = [c for c in _all_columns(blocks) if c["name"] in published_rows(name)[0].values]
    units = [f"{c['name']} ({c['unit']})" if c["unit"] else str(c["name"]) for c in columns]
    header = ["kind", "published", "base model", "reported by", "dataset", "protocol", *units]
    table = SETS[name]
    lines = [
        ["published", row.name, row.base, row.source, table.dataset, table.protocol]
        + [row.values[str(column["name"])] for column in columns]
        for row in published_rows(name)
    ]
    return [_csv([header, *lines])]


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
