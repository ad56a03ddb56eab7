"""What a run leaves beside its records: its config, its origin, its reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from rich.console import Console
from rich.markup import escape

from zerocon.backbones.base import Backbone
from zerocon.config.settings import RunSettings
from zerocon.core.cases import CaseError, Dataset
from zerocon.core.checks import ConfigError
from zerocon.core.pictures import case_pictures
from zerocon.core.shards import Shard
from zerocon.core.text import printable
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.code import code_digest
from zerocon.ledger.origin import FILE, Origin
from zerocon.ledger.provenance import git_state, provenance
from zerocon.ledger.records import Record, RecordLog, read_records, verify_images
from zerocon.ledger.status import status_of
from zerocon.metrics.base import Metric
from zerocon.reports.evaluation import evaluation_of
from zerocon.reports.gallery.items import GalleryItem, reduced
from zerocon.reports.gallery.page import write_gallery
from zerocon.reports.layout import grids, hidden, measurable
from zerocon.reports.render import print_grids
from zerocon.reports.runs import Run
from zerocon.reports.summary import Summary, summarize, write_summary
from zerocon.trackers.base import Tracker

GALLERY = "gallery.html"
HTML_CASES = 1000  # the page shows these; a run may have more
LATER = "edited by other code than the run began with"  # in the notes of such records


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
        )
        | mixed_worlds(settings.mixture),
    )


def mixed_worlds(mixture: str) -> dict[str, str]:
    """What the origin says if the judges do not know the pictures' world; tables repeat it."""
    return {"mixed_worlds": mixture} if mixture else {}


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
    if status_of(settings.directory).left:  # other shards', who will write the reports
        origin, records = _read(settings.directory)
        summary = summarize(records, origin.columns)
    else:
        summary = write_reports(settings.directory, dataset, title, png_cases=cases)
    tracker.finish(asdict(summary.overall))


def write_reports(directory: Path, dataset: Dataset, title: str, *, png_cases: int) -> Summary:
    origin, records = _read(directory)
    summary = summarize(records, origin.columns)
    write_summary(directory, summary, origin.columns)
    seen = records[:HTML_CASES]
    items = [GalleryItem(r, later=partial(_gallery_item, directory, dataset, r)) for r in seen]
    items += [GalleryItem(record) for record in records[HTML_CASES:]]  # counted, not shown
    write_gallery(
        directory, items, origin.columns, title, png_cases=png_cases, html_cases=HTML_CASES
    )
    return summary


def is_complete(
    directory: Path,
    *,
    retry_failed: bool,
    shard: str = "1/1",
    on_code_change: str = "warn",
) -> bool:
    """Is every case recorded with its picture, and are the reports there? Loads no model.

    A shard's part is complete without the reports, as long as other shards have cases left.
    """
    origin = Origin.read(directory)
    if origin is None or (on_code_change == "rerun" and code_differs(origin)):
        return False
    with RecordLog(directory, retry_failed) as log:
        done = log.done_ids()
        lost = verify_images(directory, [r for r in log.records() if r.ok])
    mine = set(Shard.read(shard).of(origin.case_ids))
    if mine - done or mine & lost.keys():
        return False
    return (directory / GALLERY).exists() or not set(origin.case_ids) <= done


def code_differs(origin: Origin) -> str:
    """Now and then, in words, when the code that makes the numbers is not what the run's was."""
    before, now = origin.provenance.get("code"), code_digest()
    if before in (None, now):
        return ""
    revision = git_state()["revision"] or "no revision"
    began = (origin.provenance.get("git") or {}).get("revision") or "no revision"
    return f"{revision[:10]}, digest {now[:8]}, not {began[:10]}, digest {before[:8]}"


def heed_code(directory: Path, policy: str) -> None:
    """What `runner.on_code_change` says about a run that other code began."""
    origin = Origin.read(directory)
    differs = code_differs(origin) if origin else ""
    if origin is None or not differs:
        return
    if policy == "refuse" and status_of(directory).left:
        raise ConfigError(
            f"{directory} would be continued by other code ({differs}); "
            "runner.on_code_change=warn goes on all the same, runner.on_code_change=rerun begins "
            "anew and keeps the old directory aside"
        )
    if policy == "rerun":
        aside = directory.with_name(f"{directory.name}.{origin.provenance['code'][:8]}")
        directory.rename(aside)


def report(
    directory: Path, console: Console, *, per_type: bool, whole: bool = True
) -> tuple[int, int]:
    """Print the run's table and where its files are; (cases, failed)."""
    origin, records = _read(directory)
    summary = summarize(records, origin.columns)
    _print(console, summary, Run(directory, origin.name, origin), per_type=per_type)
    for record in records:
        if not record.ok:
            case, error = (escape(printable(text)) for text in (record.case, record.error))
            said = f"[red]case {case} failed:[/] {error}"
            console.print(said, highlight=False)
    for said in _about_code(origin, records):
        console.print(f"[yellow]{escape(printable(said))}", highlight=False)
    if whole:
        said = f"{directory}/{GALLERY} and gallery.png show every case."
        console.print(printable(said), highlight=False, markup=False)
    return len(records), summary.overall.failed


def _about_code(origin: Origin, records: Sequence[Record]) -> list[str]:
    later = sum(any(LATER in note for note in record.notes) for record in records)
    said = [f"{later} of the cases were {LATER}; their notes say by which."] if later else []
    if code_differs(origin):
        said.append("The code has changed since this run began; on_code_change=rerun does it anew.")
    return said


def _print(console: Console, summary: Summary, run: Run, *, per_type: bool) -> None:
    columns, backbone = run.origin.columns, run.origin.backbone
    shown = measurable(columns, [summary])
    print_grids(grids({(run.label,): summary}, shown, per_type, console.width), console)
    backbone = f"backbone {backbone['name']} {backbone['fingerprint']}"
    for said in (*hidden(columns, shown), f"{evaluation_of(run).words()}; {backbone}"):
        console.print(f"[dim]{escape(printable(said))}[/]", highlight=False)


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
