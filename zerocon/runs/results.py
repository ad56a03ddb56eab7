"""How a run begins and ends: its origin, whether it is complete, its reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

from zerocon.backbones.base import Backbone, is_compiled
from zerocon.config.settings import RunSettings
from zerocon.core.cases import CaseError, Dataset
from zerocon.core.checks import ConfigError
from zerocon.core.pictures import case_pictures
from zerocon.core.records import Record
from zerocon.core.shards import Shard
from zerocon.core.text import printable
from zerocon.ledger.code import code_digests
from zerocon.ledger.identity import Identity, InputsChangedError
from zerocon.ledger.origin import Origin, environment
from zerocon.ledger.run_directory import GALLERY, RunDirectory
from zerocon.metrics.base import Metric
from zerocon.reports.evaluation import evaluation_of
from zerocon.reports.gallery.items import GalleryItem, reduced
from zerocon.reports.gallery.page import write_gallery
from zerocon.reports.layout import grids, hidden, measurable
from zerocon.reports.render import print_grids
from zerocon.reports.runs import Run
from zerocon.reports.summary import Summary, summarize, write_summary
from zerocon.runs.inputs import code_difference
from zerocon.trackers.base import Tracker

HTML_CASES = 1000  # the page shows these; a run may have more
LATER = "edited by other code than the run began with"  # in the notes of such records


def origin_of(
    settings: RunSettings, backbone: Backbone, dataset: Dataset, metrics: Sequence[Metric]
) -> Origin:
    """Of a run with these models; `with_inputs` adds what it depends on."""
    return Origin(
        name=settings.name,
        case_ids=list(dataset.ids),
        columns=[asdict(column) for metric in metrics for column in metric.columns],
        protocol=str(settings.config["metrics"].get("protocol", "")),
        backbone={"name": backbone.name, "fingerprint": backbone.fingerprint},
        dataset={"name": dataset.name},
        judges=judges_of(metrics),
        uses_mask=settings.method.uses_mask,
        provenance=environment(
            str(backbone.device), str(backbone.dtype).removeprefix("torch."), settings.seed
        )
        | {"compiled": is_compiled(backbone)}
        | mixed_worlds(settings.mixture),
    )


def judges_of(metrics: Sequence[Metric]) -> dict[str, str]:
    return {type(m).__name__: m.fingerprint for m in metrics if m.fingerprint}


def mixed_worlds(mixture: str) -> dict[str, str]:
    """What the origin says if the judges do not know the pictures' world; tables repeat it."""
    return {"mixed_worlds": mixture} if mixture else {}


def with_inputs(origin: Origin, inputs: Identity) -> Origin:
    dataset = origin.dataset | {"fingerprint": inputs.dataset_fingerprint}
    return replace(origin, dataset=dataset, inputs=inputs.digest)


def begin(run: RunDirectory, now: Origin, inputs: Identity, config: Mapping[str, Any]) -> None:
    """Write what a new run is, or refuse to mix the numbers of two in one directory."""
    before = run.find_origin()
    if before is None:
        run.begin(now, inputs, config)
        return
    if not run.has_config:
        run.write_config(config)
    for what in ("backbone", "judges"):
        if getattr(before, what) != getattr(now, what):
            raise InputsChangedError(
                f"{run} was begun with another {what} ({getattr(before, what)}) than there "
                f"is now ({getattr(now, what)}): its numbers would mix. Remove the directory, or "
                "give the run another `name`."
            )


def finish(settings: RunSettings, run: RunDirectory, dataset: Dataset, tracker: Tracker) -> None:
    """Write the summary and the galleries, and tell the tracker."""
    method = type(settings.method).__name__
    title = f"{settings.name}: {method} on {dataset.name}"
    if run.status().left:  # in other shards, which will write the reports
        summary = summarize(run.records_in_order(), run.origin.columns)
    else:
        cases = settings.runner.gallery_cases
        summary = write_reports(run, dataset, title, png_cases=cases)
    tracker.finish(asdict(summary.overall) | {"columns": run.origin.columns})


def write_reports(run: RunDirectory, dataset: Dataset, title: str, *, png_cases: int) -> Summary:
    records, columns = run.records_in_order(), run.origin.columns
    summary = summarize(records, columns)
    write_summary(run.path, summary, columns)
    seen = records[:HTML_CASES]
    items = [GalleryItem(r, later=partial(_gallery_item, run, dataset, r)) for r in seen]
    items += [GalleryItem(record) for record in records[HTML_CASES:]]  # counted, not shown
    write_gallery(run.path, items, columns, title, png_cases=png_cases, html_cases=HTML_CASES)
    return summary


def is_complete(run: RunDirectory, *, retry_failed: bool, shard: str = "1/1") -> bool:
    """Is every case recorded with its picture, and are the reports there? Loads no model.

    A shard's part is complete without the reports while other shards have cases left.
    """
    origin = run.find_origin()
    if origin is None:
        return False
    done = run.done_cases(retry_failed=retry_failed)
    if set(Shard.read(shard).of(origin.case_ids)) - done:
        return False
    return run.has_reports or not set(origin.case_ids) <= done


def must_begin_anew(run: RunDirectory, config: Mapping[str, Any], on_code_change: str) -> bool:
    """Was the run made by other code, and is it to be done again then?"""
    differs = run.begun and code_difference(run, code_digests(config))
    return bool(differs) and on_code_change == "rerun"


def follow_code_policy(run: RunDirectory, config: Mapping[str, Any], on_code_change: str) -> None:
    """Do what `runner.on_code_change` asks for with a run that other code began."""
    differs = code_difference(run, code_digests(config)) if run.begun else ""
    if differs and on_code_change == "refuse" and run.status().left:
        raise ConfigError(
            f"{run} would be continued by other code ({differs}); "
            "runner.on_code_change=warn goes on all the same, runner.on_code_change=rerun begins "
            "anew and keeps the old directory aside"
        )


def set_aside(run: RunDirectory) -> None:
    """Rename the directory, so that the run can begin anew."""
    digest = (run.origin.inputs or str(run.origin.provenance.get("code")))[:8]
    aside, number = run.path.with_name(f"{run.name}.{digest}"), 1
    while aside.exists():
        number += 1
        aside = run.path.with_name(f"{run.name}.{digest}.{number}")
    run.path.rename(aside)


def report(
    run: RunDirectory,
    console: Console,
    *,
    per_type: bool,
    whole: bool = True,
    unchecked: Sequence[str] = (),
    code: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Print the run's table and where its files are; (cases, failed).

    `unchecked`: what of its inputs could not be compared, `code`: the current code's digests.
    """
    origin, records = run.origin, run.records_in_order()
    summary = summarize(records, origin.columns)
    _print(console, summary, Run(run.path, origin.name, origin), per_type=per_type)
    for record in records:
        if not record.ok:
            case, error = (escape(printable(text)) for text in (record.case, record.error))
            console.print(f"[red]case {case} failed:[/] {error}", highlight=False)
    for warning in [*_about_code(run, code), *_about_inputs(unchecked)]:
        console.print(f"[yellow]{escape(printable(warning))}", highlight=False)
    if whole:
        said = f"{run}/{GALLERY} and gallery.png show every case."
        console.print(printable(said), highlight=False, markup=False)
    return len(records), summary.overall.failed


def _about_code(run: RunDirectory, code: Mapping[str, str] | None) -> list[str]:
    later = sum(any(LATER in note for note in record.notes) for record in run.records_in_order())
    said = [f"{later} of the cases were {LATER}; their notes say by which."] if later else []
    if code is not None and code_difference(run, code):
        said.append("The code has changed since this run began; on_code_change=rerun does it anew.")
    return said


def _about_inputs(unchecked: Sequence[str]) -> list[str]:
    if not unchecked:
        return []
    reasons = "; ".join(unchecked)
    return [f"It could not be checked whether all inputs are those of this run: {reasons}."]


def _print(console: Console, summary: Summary, run: Run, *, per_type: bool) -> None:
    columns, backbone = run.origin.columns, run.origin.backbone
    shown = measurable(columns, [summary])
    print_grids(grids({(run.label,): summary}, shown, per_type, console.width), console)
    backbone = f"backbone {backbone['name']} {backbone['fingerprint']}"
    for said in (*hidden(columns, shown), f"{evaluation_of(run).words()}; {backbone}"):
        console.print(f"[dim]{escape(printable(said))}[/]", highlight=False)


def _gallery_item(run: RunDirectory, dataset: Dataset, record: Record) -> GalleryItem:
    """The record with its pictures: the request's from the dataset, the edit from its file."""
    try:
        pictures = case_pictures(dataset.load(record.case))
    except CaseError:
        pictures = {}
    if record.image is not None:
        pictures["edited"] = run.picture(record)
    small = {name: reduced(picture) for name, picture in pictures.items()}
    return GalleryItem(
        record,
        source=small.get("source"),
        edited=small.get("edited"),
        ground_truth=small.get("truth"),
        mask=small.get("mask"),
    )
