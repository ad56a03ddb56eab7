"""One run: cases in batches through encode, invert, edit, decode and score, into records.

Running it again continues it. A case that fails becomes a failed record and the run goes on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.cases import Case, CaseError, Dataset
from zerocon.checks import ConfigError
from zerocon.conditions import Conditions, Draws
from zerocon.config import RunSettings
from zerocon.metrics.base import Metric, Pictures, full_precision
from zerocon.runs.pictures import case_pictures, from_uint8, to_uint8
from zerocon.runs.records import Record, RecordLog, save_image
from zerocon.runs.results import check_origin, finish, is_complete, report
from zerocon.runs.trackers import Guarded, Tracker
from zerocon.words import words_of

CONSOLE = Console()


@dataclass(frozen=True)
class Loaded:
    """What a run needs in memory."""

    backbone: Backbone
    dataset: Dataset
    metrics: list[Metric]


@dataclass(frozen=True)
class Outcome:
    directory: Path
    done: int
    failed: int


def execute(settings: RunSettings) -> Outcome:
    """Do what is left of the run, then print and write its results."""
    directory = settings.directory
    if not is_complete(directory, retry_failed=settings.runner.retry_failed):
        loaded = load(settings)
        check_origin(settings, loaded.backbone, loaded.dataset, loaded.metrics)
        tracker = Guarded(settings.tracker())
        tracker.start(settings.config, directory.name, settings.name)
        try:
            work(settings, loaded, tracker)
            finish(settings, loaded.dataset, tracker)
        except BaseException as error:
            tracker.fail(f"{type(error).__name__}: {error}")
            raise
    return Outcome(directory, *report(directory, CONSOLE, per_type=settings.runner.per_type))


def load(settings: RunSettings) -> Loaded:
    backbone = settings.backbone.load()
    return Loaded(backbone, settings.dataset(side=backbone.side), settings.metrics())


def work(settings: RunSettings, loaded: Loaded, tracker: Tracker) -> None:
    """Edit and record every case that has no record yet."""
    with RecordLog(settings.directory, settings.runner.retry_failed) as log:
        for repair in log.repairs:
            CONSOLE.print(f"[yellow]{repair}")
        done = log.done_ids()
        _replay(settings, log, tracker)
        left = [case_id for case_id in loaded.dataset.ids if case_id not in done]
        with _progress() as progress:
            task = progress.add_task("editing", total=len(loaded.dataset.ids), completed=len(done))
            for batch in _batches(left, settings.runner.batch_size):
                for record, pictures in _process(settings, loaded, batch):
                    log.append(record)
                    tracker.log_case(record, pictures)
                    progress.advance(task)


Pics = dict[str, Image.Image]


def _replay(settings: RunSettings, log: RecordLog, tracker: Tracker) -> None:
    """Tell the tracker of the cases that an earlier session did."""
    for record in log.records():
        if record.image is not None and record.case in log.done_ids():
            tracker.log_case(record, {"edited": Image.open(settings.directory / record.image)})


def _process(
    settings: RunSettings, loaded: Loaded, case_ids: Sequence[str]
) -> Iterator[tuple[Record, Pics]]:
    """Records of a batch; a case that can't be loaded or edited gets a failed one."""
    cases: list[Case] = []
    for case_id in case_ids:
        try:
            cases.append(loaded.dataset.load(case_id))
        except CaseError as error:
            yield Record(case=case_id, status="failed", error=str(error)), {}
    yield from _edited_or_failed(settings, loaded, cases)


def _edited_or_failed(
    settings: RunSettings, loaded: Loaded, cases: Sequence[Case]
) -> Iterator[tuple[Record, Pics]]:
    if not cases:
        return
    try:
        finished = list(_edit_and_score(settings, loaded, cases))
    except ConfigError:
        raise  # a setting that no case can be edited with
    except Exception as error:  # noqa: BLE001 - one bad case must not end the run; it is recorded
        if len(cases) == 1:
            yield _failed(cases[0], error), {}
        else:  # find out whose fault it was
            for case in cases:
                yield from _edited_or_failed(settings, loaded, [case])
        return
    yield from finished


def _edit_and_score(
    settings: RunSettings, loaded: Loaded, cases: Sequence[Case]
) -> Iterator[tuple[Record, Pics]]:
    started = time.perf_counter()
    edited = to_uint8(edit(settings, loaded.backbone, cases))
    # Scored as they are stored, so that the numbers can be had again from the files.
    scores = score(loaded.metrics, cases, from_uint8(edited).to(loaded.backbone.device))
    seconds = (time.perf_counter() - started) / len(cases)
    for row, case in enumerate(cases):
        picture = Image.fromarray(edited[row])
        path, sha256 = save_image(settings.directory, case.id, picture)
        yield (
            Record(
                **_request(loaded.backbone, case),
                status="ok",
                image=path,
                sha256=sha256,
                metrics={name: float(values[row]) for name, values in scores.items()},
                seconds=round(seconds, 4),
            ),
            case_pictures(case) | {"edited": picture},
        )


def edit(settings: RunSettings, backbone: Backbone, cases: Sequence[Case]) -> Tensor:
    """The edited pictures of a batch, [case, 3, side, side]."""
    clean = backbone.encode(torch.stack([case.image for case in cases]))
    conditions = Conditions(
        source=backbone.embed([case.source_prompt for case in cases]),
        target=settings.direction(backbone, cases),
        negative=backbone.embed([""] * len(cases)),
        words=[words_of(backbone, case) for case in cases],
    )
    method = settings.method
    draws = Draws(settings.seed, [case.id for case in cases])
    trajectory = settings.inversion(backbone, clean, conditions, method.steps, draws)
    latents = method(backbone, trajectory, conditions, draws)
    if not latents.isfinite().all():
        raise FloatingPointError("the edited latent has values that are not finite")
    return backbone.decode(latents)


def score(metrics: Sequence[Metric], cases: Sequence[Case], edited: Tensor) -> dict[str, Tensor]:
    """Every metric's columns, [case] each; computed where `edited` is."""
    pictures = Pictures.of(cases, edited)
    with full_precision():
        found = [metric(pictures) for metric in metrics]
    return {name: values.cpu() for columns in found for name, values in columns.items()}


def _request(backbone: Backbone, case: Case) -> dict[str, Any]:
    """What was asked, as the record tells it."""
    prompts = {"source": case.source_prompt, "target": case.target_prompt}
    cut = [
        f"the {which} prompt is longer than the text encoder reads; its end was cut off"
        for which, prompt in prompts.items()
        if backbone.too_long(prompt)
    ]
    return {
        "case": case.id,
        "edit_type": case.edit_type,
        "edit_name": case.edit_name,
        "source_prompt": case.source_prompt,
        "target_prompt": case.target_prompt,
        "instruction": case.instruction,
        "notes": (*case.notes, *cut),
    }


def _failed(case: Case, error: Exception) -> Record:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Record(
        case=case.id,
        status="failed",
        error=f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})",
        edit_type=case.edit_type,
        edit_name=case.edit_name,
        source_prompt=case.source_prompt,
        target_prompt=case.target_prompt,
        instruction=case.instruction,
        notes=case.notes,
    )


def _batches(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cases, left:"),
        TimeRemainingColumn(),
        console=CONSOLE,
    )
