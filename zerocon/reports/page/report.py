"""`zerocon report`: one page about several runs that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
from matplotlib import rc_context

from zerocon.core.checks import ConfigError, in_range
from zerocon.core.records import Record
from zerocon.core.text import counted
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.records import FILE_NAME, read_records
from zerocon.reports.comparison import same_cases, types_of
from zerocon.reports.drawing import SVG
from zerocon.reports.estimates import estimates
from zerocon.reports.evaluation import Evaluation, differences, evaluations
from zerocon.reports.frontier.curves import curve_runs, frontier_of
from zerocon.reports.frontier.plot import frontier_figure
from zerocon.reports.frontier.table import (
    PRESERVATION,
    SUCCESS,
    chosen,
    front_of,
    frontier_grids,
)
from zerocon.reports.key_metrics import key_first
from zerocon.reports.page import facts, plots
from zerocon.reports.page.cases import Lookup, cards, dataset_of
from zerocon.reports.page.drawings import Drawings
from zerocon.reports.page.markup import details, grid_table, notes, section
from zerocon.reports.page.results import Results, results_of, results_table
from zerocon.reports.page.variants import Variants, numeric, variants_of
from zerocon.reports.runs import Run, columns_of
from zerocon.reports.store import Cells, Store
from zerocon.reports.summary import LEVEL, RESAMPLES, Column
from zerocon.reports.table import measured

MEGABYTES = 5.0
OPEN_PLOTS = 4  # metrics whose plots are visible at first; the others are folded
_MOST_NAMED = 3  # runs, in the title
_MARGIN = 20_000  # bytes reserved for text that depends on the chosen pictures


@dataclass(frozen=True)
class Part:
    """Runs with the same evaluation, whose numbers may share a column."""

    name: str
    evaluation: Evaluation
    title: str
    variants: Variants
    columns: Sequence[Column]
    cells: Cells
    results: Results
    said: Sequence[str]
    drawings: Drawings


def write_report(
    out: Path,
    runs: Sequence[Run],
    *,
    metrics: Sequence[str] = (),
    along: Sequence[str] = (),
    title: str = "",
    lookups: Mapping[str, Lookup] | None = None,
    said: Sequence[str] = (),
    megabytes: float = MEGABYTES,
    plots_folder: Path | None = None,
) -> int:
    """Write the page and return its size in bytes.

    `lookups` finds a dataset's pictures, by the dataset's name and fingerprint; `said` are notes
    above the gallery. Every plot is also written to `plots_folder`, as PNG and SVG.
    """
    in_range("--megabytes", megabytes, 0.5)
    page = report_page(
        runs,
        metrics=metrics,
        along=along,
        title=title,
        lookups=lookups or {},
        said=said,
        room=megabytes * 1e6,
        drawings=Drawings(plots_folder),
    )
    data = page.encode(errors="replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, data)
    return len(data)


def report_page(
    runs: Sequence[Run],
    *,
    metrics: Sequence[str] = (),
    along: Sequence[str] = (),
    title: str = "",
    lookups: Mapping[str, Lookup],
    said: Sequence[str] = (),
    room: float = MEGABYTES * 1e6,
    drawings: Drawings | None = None,
) -> str:
    variants = variants_of(runs, along)
    records = [_records(run) for run in variants.runs]
    parts = parts_of(variants, metrics, along, drawings or Drawings(None))
    with rc_context({**SVG, "font.size": 9}):
        before = [
            section("asked", "Settings", facts.asked(variants)),
            section("results", "Results", *_apart(parts), *map(_results, parts)),
            section("ablation", "Ablation", *map(_ablation, parts)),
            section("types", "Edit types", *map(_edit_types, parts)),
            section("frontier", "Frontier", *map(_frontier, parts)),
        ]
    after = [
        section("failures", "Failures", facts.failures(variants, records)),
        section("cost", "Cost", facts.cost(variants, records)),
        section("provenance", "Provenance", facts.provenance(variants)),
    ]
    columns = _judged_first(columns_of(variants.runs, metrics))
    left = room - sum(len(text.encode()) for text in (*before, *after)) - _MARGIN
    left -= len(cards(variants, records, columns, {}, 0.0).encode())
    gallery = cards(variants, records, columns, lookups, max(left, 0.0))
    shown = section("gallery", "Gallery", notes(said), gallery)
    return _page(title or _title(variants), _subtitle(variants, records), [*before, shown, *after])


def _records(run: Run) -> list[Record]:
    """The records of the run's own cases."""
    if not (run.directory / FILE_NAME).exists():
        return []
    wanted = set(run.origin.case_ids)
    return [record for record in read_records(run.directory) if record.case in wanted]


def parts_of(
    variants: Variants, metrics: Sequence[str], along: Sequence[str], drawings: Drawings
) -> list[Part]:
    columns_of(variants.runs, metrics)  # raises if no run has a metric
    parts: list[Part] = []
    found = evaluations(variants.runs)
    blocks = {block.evaluation: block for block in measured(variants.runs)}
    for number, (evaluation, several) in enumerate(found.items(), 1):
        columns = [c for c in columns_of(several) if not metrics or c["name"] in metrics]
        columns = columns if metrics else key_first(columns)
        cells = Store(several, columns).cells()
        has = [name for name in along if any(name in run.fields for run in several)]
        part = variants.part(several, variants_of(several, has).swept)
        title = f"{number} of {len(found)}: {evaluation.words()}" if len(found) > 1 else ""
        said = blocks[evaluation].notes
        found_in = results_of(columns, cells)
        parts.append(
            Part(
                f"table{number}", evaluation, title, part, columns, cells, found_in, said, drawings
            )
        )
    return parts


def _apart(parts: Sequence[Part]) -> list[str]:
    """A note on why there are several tables."""
    if len(parts) < 2:
        return []
    why = differences(part.evaluation for part in parts)
    return [notes([f"{len(parts)} separate tables, because the runs differ in {why}"])]


def _results(part: Part) -> str:
    made = results_table(part.variants, part.results, part.cells, part.name, part.said)
    return _titled(part, made)


def _titled(part: Part, body: str) -> str:
    return f"<h3>{escape(part.title)}</h3>{body}" if part.title and body else body


def _ablation(part: Part) -> str:
    """Curves and heat maps for a sweep; dots for other runs."""
    if len(part.variants.runs) < 2:
        return ""
    columns = _judged_first(part.results.columns)
    drawn = [_plots(part, column) for column in columns]
    first, more = "".join(drawn[:OPEN_PLOTS]), "".join(drawn[OPEN_PLOTS:])
    folded = details(f"{len(drawn) - OPEN_PLOTS} more metrics", f'<div class="plots">{more}</div>')
    body = f'<div class="plots">{first}</div>{folded if more else ""}'
    said = [f"means and their {LEVEL:.0%} intervals{_gathered(part)}", *_not_drawn(part)]
    return _titled(part, notes(said) + body)


def _edit_types(part: Part) -> str:
    """The metrics of success and preservation by edit type, if there are several types."""
    types = np.array(part.cells.edit_types)
    kinds = types_of(part.cells)
    columns = [
        column
        for names in (SUCCESS, PRESERVATION)
        for column in [c for name in names for c in part.results.columns if c["name"] == name][:1]
    ]
    if len(kinds) < 2 or not columns:
        return ""
    labels = [part.cells.edit_names.get(kind, kind) for kind in kinds]
    counted_labels = [
        f"{label} ({np.count_nonzero(types == kind)})"
        for label, kind in zip(labels, kinds, strict=True)
    ]
    drawn = ""
    for column in columns:
        values = part.cells.values[str(column["name"])]
        found = [estimates(values[:, types == kind]) for kind in kinds]
        figure = plots.bars(part.variants.labels, counted_labels, found, column)
        drawn += part.drawings.plot(figure, f"{column['name']} by edit type")
    said = [f"means and their {LEVEL:.0%} intervals by edit type, with the number of cases"]
    return _titled(part, notes(said) + f'<div class="plots wide-plots">{drawn}</div>')


def _not_drawn(part: Part) -> list[str]:
    infinite = [name for name, runs in part.results.runs.items() if any(r.infinite for r in runs)]
    return [f"plots show the finite values only: {', '.join(infinite)}"] if infinite else []


def _gathered(part: Part) -> str:
    if not part.variants.swept:
        return ""
    sweep = plots.sweep_of(part.variants)
    several = any(len(group) > 1 for group in sweep.runs.values())
    return (
        "; where a point has several runs, each case is first averaged over them" if several else ""
    )


def _judged_first(columns: Sequence[Column]) -> list[Column]:
    """Order columns: one metric of success, one of preservation, then the others."""
    names = [str(column["name"]) for column in columns]
    first = [next((n for n in several if n in names), "") for several in (SUCCESS, PRESERVATION)]
    order = [*first, *names]
    return sorted(columns, key=lambda column: order.index(str(column["name"])))


def _plots(part: Part, column: Column) -> str:
    name = str(column["name"])
    sweep = plots.sweep_of(part.variants)
    swept = [s for s in sweep.settings if len(part.variants.values(s)) > 1]
    if not swept:
        figure = plots.dots(part.variants.labels, part.results.runs[name], column)
        return part.drawings.plot(figure, f"{name} of each variant", name)
    found = plots.sweep_estimates(sweep, part.cells.values[name])
    curve = plots.curves(sweep, found, column)
    drawn = part.drawings.plot(curve, f"{name} over {swept[0]}", name)
    if len(swept) < 2:
        return drawn
    figure = plots.heat_map(sweep, found, column)
    map_of = part.drawings.plot(figure, f"{name} over {swept[0]} and {swept[1]}, a map", name)
    return f'<div class="pair">{drawn}{map_of}</div>'


def _frontier(part: Part) -> str:
    """Success against preservation, if two runs or more measured both."""
    runs = part.variants.runs
    if len(runs) < 2:
        return ""
    try:
        return _titled(part, _curves(part, runs))
    except ConfigError as error:
        return _titled(part, notes([f"no frontier: {error}"]))


def _curves(part: Part, runs: Sequence[Run]) -> str:
    columns = chosen(runs, None, PRESERVATION, "--x"), chosen(runs, None, SUCCESS, "--y")
    if any(column not in part.columns for column in columns):
        return ""  # not among the requested metrics
    curves = curve_runs(runs, *_by_and_along(part.variants))
    cells, said = same_cases(runs, columns, intersection=True)
    made = frontier_of(runs, columns, cells, curves)
    figure = frontier_figure(made.curves, *columns, front_of(made))
    grids = frontier_grids(made, RESAMPLES, 0, said)
    drawn = part.drawings.plot(figure, f"{columns[1]['name']} against {columns[0]['name']}")
    return f'<div class="frontier">{drawn}</div>' + details(
        "the curves as a table", "".join(map(grid_table, grids))
    )


def _by_and_along(variants: Variants) -> tuple[list[str], list[str]]:
    """The settings that separate curves, and the swept number along each curve."""
    along = [s for s in variants.swept if numeric(variants.values(s))][:1]
    if not along:
        return [], []
    return ["method", *(s for s in variants.swept if s not in along)], along


def _title(variants: Variants) -> str:
    names = list(dict.fromkeys(run.origin.name for run in variants.runs))
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _subtitle(variants: Variants, records: Sequence[Sequence[Record]]) -> str:
    datasets = dict.fromkeys(run.origin.dataset.get("name", "") for run in variants.runs)
    cases = {
        (dataset_of(run), record.case)
        for run, of_run in zip(variants.runs, records, strict=True)
        for record in of_run
    }
    failed = sum(not record.ok for of_run in records for record in of_run)
    size = f"{counted(len(variants.runs), 'run')} over {counted(len(cases), 'case')}"
    return f"{size} of {', '.join(datasets)}, {counted(failed, 'edit')} failed"


def _page(title: str, subtitle: str, sections: Sequence[str]) -> str:
    template = Template((files("zerocon.reports.page") / "page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(title), subtitle=escape(subtitle), sections="\n".join(filter(None, sections))
    )
