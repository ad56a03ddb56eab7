"""What a run leaves beside its records: its config, its origin, its reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml
from PIL import Image
from rich.console import Console

from zerocon.backbones.base import Backbone
from zerocon.cases import CaseError, Dataset
from zerocon.checks import ConfigError
from zerocon.config import RunSettings
from zerocon.metrics.base import Metric
from zerocon.reports.gallery import write_gallery
from zerocon.reports.pictures import GalleryItem
from zerocon.reports.summary import Summary, summarize, write_summary
from zerocon.reports.table import grids, print_grids, to_markdown
from zerocon.runs.atomic import write_atomic
from zerocon.runs.origin import FILE, Origin
from zerocon.runs.pictures import case_pictures
from zerocon.runs.provenance import provenance
from zerocon.runs.records import Record, RecordLog, read_records, verify_images
from zerocon.runs.trackers import Tracker

GALLERY = "gallery.html"


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
    """Note the origin of a new run; refuse to mix numbers of two origins in one run."""
    directory = settings.directory
    now, before = origin_of(settings, backbone, dataset, metrics), Origin.read(directory)
    if before is None:
        now.write(directory)
        config = yaml.safe_dump(settings.config, sort_keys=False, allow_unicode=True)
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
    directory = settings.directory
    origin, records = _read(directory)
    summary = summarize(records, origin.columns)
    write_summary(directory, summary, origin.columns)
    items = [_gallery_item(directory, dataset, record) for record in records]
    write_gallery(
        directory,
        items,
        origin.columns,
        title=_title(settings, origin),
        png_cases=settings.runner.gallery_cases,
    )
    tracker.finish(asdict(summary.overall))


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
    _print(console, {origin.name: summary}, origin, per_type=per_type)
    for record in records:
        if not record.ok:
            console.print(f"[red]case {record.case} failed:[/] {record.error}", highlight=False)
    console.print(f"{directory}/{GALLERY} and gallery.png show every case.", highlight=False)
    return len(records), summary.overall.failed


def print_table(directories: Sequence[Path], *, per_type: bool, markdown: bool) -> None:
    """Several runs side by side; refuses numbers that don't mean the same."""
    runs = {directory.name: _read(directory) for directory in directories}
    first, *others = runs.values()
    for origin, _ in others:
        _check_comparable(first[0], origin)
    summaries = {name: summarize(records, first[0].columns) for name, (_, records) in runs.items()}
    console = Console()
    if markdown:
        tables = grids(summaries, first[0].columns, per_type, width=10_000)
        console.out(to_markdown(tables), end="", highlight=False)
    else:
        _print(console, summaries, first[0], per_type=per_type)


def _check_comparable(a: Origin, b: Origin) -> None:
    for what in ("protocol", "dataset", "judges"):
        if getattr(a, what) != getattr(b, what):
            raise ConfigError(
                f"the runs can't stand in one table: their {what} differs "
                f"({getattr(a, what)} and {getattr(b, what)})"
            )


def _print(
    console: Console, summaries: dict[str, Summary], origin: Origin, *, per_type: bool
) -> None:
    print_grids(grids(summaries, origin.columns, per_type, console.width), console)
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
    edited = None if record.image is None else Image.open(directory / record.image)
    return GalleryItem(
        record,
        source=pictures.get("source"),
        edited=edited,
        ground_truth=pictures.get("truth"),
        mask=pictures.get("mask"),
    )


def _title(settings: RunSettings, origin: Origin) -> str:
    method = type(settings.method).__name__
    return f"{settings.name}: {method} on {origin.dataset['name']}"
