"""What a run leaves beside its records: its config, its origin, its reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from rich.console import Console
from rich.markup import escape

from zerocon.backbones.base import Backbone
from zerocon.cases import CaseError, Dataset
from zerocon.checks import ConfigError
from zerocon.config import RunSettings
from zerocon.metrics.base import Metric
from zerocon.reports.gallery import write_gallery
from zerocon.reports.layout import grids
from zerocon.reports.pictures import GalleryItem, reduced
from zerocon.reports.render import print_grids
from zerocon.reports.summary import Summary, summarize, write_summary
from zerocon.runs.atomic import write_atomic
from zerocon.runs.origin import FILE, Origin
from zerocon.runs.pictures import case_pictures
from zerocon.runs.provenance import provenance
from zerocon.runs.records import Record, RecordLog, read_records, verify_images
from zerocon.runs.trackers import Tracker

GALLERY = "gallery.html"
HTML_CASES = 1000  # the page shows these; a run may have more


def origin_of(
    settings: RunSettings, backbone: Backbone, dataset: Dataset, metrics: Sequence[Metric]
) -> Origin:
    return Origin(
        name=settings.name,
        case_ids=list(dataset.ids),
        columns=[asdict(column) for metric in metrics for column in metric.columns],
        protocol=str(settings.config["metrics"].get("protocol", "")),
        backbone={"name": backbone.name, "fingerprint": backbone.fingerprint},
        dataset={"name": dataset.name, "fingerprint": dataset.fingerprint},
        judges={type(m).__name__: m.fingerprint for m in metrics if m.fingerprint},
        uses_mask=settings.method.uses_mask,
        provenance=provenance(
            str(backbone.device), str(backbone.dtype).removeprefix("torch."), settings.seed
        ),
    )


def check_origin(
    settings: RunSettings, backbone: Backbone, dataset: Dataset, metrics: Sequence[Metric]
) -> None:
    begin(settings.directory, origin_of(settings, backbone, dataset, metrics), settings.config)


def begin(directory: Path, now: Origin, content: Mapping[str, Any]) -> None:
    """Note the origin of a new run; refuse to mix numbers of two origins in one run."""
    before = Origin.read(directory)
    if before is None:
        now.write(directory)
        config = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
        write_atomic(directory / "config.yaml", config.encode())
        return
    for what in ("backbone", "dataset", "judges"):
        if getattr(before, what) != getattr(now, what):
            raise ConfigError(
                f"{directory} was begun with another {what} ({getattr(before, what)}) than there "
                f"is now ({getattr(now, what)}): its numbers would mix. Remove the directory, or "
                "give the run another `name`."
            )


def finish(settings: RunSettings, dataset: Dataset, tracker: Tracker) -> None:
    """Write the summary and the galleries, tell the tracker."""
    method = type(settings.method).__name__
    title = f"{settings.name}: {method} on {dataset.name}"
    cases = settings.runner.gallery_cases
    summary = write_reports(settings.directory, dataset, title, png_cases=cases)
    tracker.finish(asdict(summary.overall))


def write_reports(directory: Path, dataset: Dataset, title: str, *, png_cases: int) -> Summary:
    origin, records = _read(directory)
    summary = summarize(records, origin.columns)
    write_summary(directory, summary, origin.columns)
    items = [_gallery_item(directory, dataset, r) for r in records[:HTML_CASES]]
    items += [GalleryItem(record) for record in records[HTML_CASES:]]  # counted, not shown
    write_gallery(
        directory, items, origin.columns, title, png_cases=png_cases, html_cases=HTML_CASES
    )
    return summary


def is_complete(directory: Path, *, retry_failed: bool) -> bool:
    """Is every case recorded with its picture, and are the reports there? Loads no model."""
    origin = Origin.read(directory)
    if origin is None or not (directory / GALLERY).exists():
        return False
    with RecordLog(directory, retry_failed) as log:
        whole = not verify_images(directory, [r for r in log.records() if r.ok])
        return whole and set(origin.case_ids) <= log.done_ids()


def report(directory: Path, console: Console, *, per_type: bool) -> tuple[int, int]:
    """Print the run's table and where its files are; (cases, failed)."""
    origin, records = _read(directory)
    summary = summarize(records, origin.columns)
    _print(console, summary, origin, per_type=per_type)
    for record in records:
        if not record.ok:
            said = f"[red]case {escape(record.case)} failed:[/] {escape(str(record.error))}"
            console.print(said, highlight=False)
    console.print(f"{directory}/{GALLERY} and gallery.png show every case.", highlight=False)
    return len(records), summary.overall.failed


def _print(console: Console, summary: Summary, origin: Origin, *, per_type: bool) -> None:
    runs = {(origin.name,): summary}
    print_grids(grids(runs, origin.columns, per_type, console.width), console)
    judges = ", ".join(sorted(set(origin.judges.values())))
    console.print(
        f"[dim]{origin.dataset['name']}, backbone {origin.backbone['name']} "
        f"{origin.backbone['fingerprint']}, protocol {origin.protocol}, judged by {judges}[/]",
        highlight=False,
    )


def _read(directory: Path) -> tuple[Origin, list[Record]]:
    origin = Origin.read(directory)
    if origin is None:
        raise ConfigError(f"{directory} is no run's directory: it has no {FILE}")
    order = {case_id: i for i, case_id in enumerate(origin.case_ids)}
    records = [r for r in read_records(directory) if r.case in order]
    return origin, sorted(records, key=lambda record: order[record.case])


def _gallery_item(directory: Path, dataset: Dataset, record: Record) -> GalleryItem:
    """The record with its pictures: the request's from the dataset, the edit from its file."""
    try:
        pictures = case_pictures(dataset.load(record.case))
    except CaseError:
        pictures = {}
    if record.image is not None:
        pictures["edited"] = Image.open(directory / record.image)
    small = {name: reduced(picture) for name, picture in pictures.items()}
    return GalleryItem(
        record,
        source=small.get("source"),
        edited=small.get("edited"),
        ground_truth=small.get("truth"),
        mask=small.get("mask"),
    )
