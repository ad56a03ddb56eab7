"""Score edited pictures made elsewhere, into a normal run directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from zerocon.core.cases import Case, CaseError
from zerocon.core.checks import shown
from zerocon.core.pictures import from_uint8
from zerocon.core.records import Record
from zerocon.core.text import printable
from zerocon.datasets.base import FileDataset
from zerocon.ledger.claims import Chunk, Waiting, chunks_left, cuts
from zerocon.ledger.identity import identity_of
from zerocon.ledger.origin import Origin, environment
from zerocon.ledger.run_directory import RunDirectory
from zerocon.metrics.base import Metric
from zerocon.runs.inputs import check
from zerocon.runs.outputs import Outputs, Rules, edited_picture
from zerocon.runs.results import (
    begin,
    is_complete,
    judges_of,
    mixed_worlds,
    report,
    with_inputs,
    write_reports,
)
from zerocon.runs.runner import Outcome, announced, saying_how_far
from zerocon.runs.work_queue import PATIENCE
from zerocon.runs.worker import ENDS_THE_RUN, score

CONSOLE = Console()

Pair = tuple[Case, Image.Image]  # a case, and the picture it was edited into


@dataclass(frozen=True)
class Scoring:
    """One method's pictures and all that is needed to score them."""

    outputs: Outputs
    dataset: FileDataset
    metrics: Sequence[Metric]
    rules: Rules
    config: Mapping[str, Any]
    directory: Path
    batch_size: int  # cases that are scored together, and recorded at once
    mixture: str = ""  # in words: which judges do not know the pictures' world


def score_outputs(scoring: Scoring, *, gallery_cases: int, per_type: bool) -> Outcome:
    """Record every case's numbers, or why it has none; print and write the results."""
    with saying_how_far(scoring.directory):
        return _score_outputs(scoring, gallery_cases, per_type)


def _score_outputs(scoring: Scoring, gallery_cases: int, per_type: bool) -> Outcome:
    run, outputs = RunDirectory(scoring.directory), scoring.outputs
    inputs = identity_of(scoring.config, scoring.dataset)
    if run.begun:
        check(run, inputs)
    if not is_complete(run, retry_failed=True):
        begin(run, with_inputs(_origin(scoring), inputs), inputs, scoring.config)
        _warn_of_strangers(outputs, scoring.dataset)
        _record_all(scoring, run)
        title = f"{outputs.name}, scored on {scoring.dataset.name}"
        write_reports(run, scoring.dataset, title, png_cases=gallery_cases)
    return Outcome(run.path, *report(run, CONSOLE, per_type=per_type))


def _origin(scoring: Scoring) -> Origin:
    dataset, metrics = scoring.dataset, scoring.metrics
    return Origin(
        name=scoring.outputs.name,
        case_ids=list(dataset.ids),
        columns=[asdict(column) for metric in metrics for column in metric.columns],
        protocol=str(scoring.config["metrics"].get("protocol", "")),
        backbone={"name": "unknown", "fingerprint": scoring.config["scored"]["outputs"]},
        dataset={"name": dataset.name},
        judges=judges_of(metrics),
        uses_mask=scoring.config["scored"].get("given_mask"),
        provenance=environment("cpu", "float32", 0) | mixed_worlds(scoring.mixture),
    )


def _warn_of_strangers(outputs: Outputs, dataset: FileDataset) -> None:
    strangers = [i for i in outputs.files if i not in set(dataset.ids)]
    if strangers:
        said = (
            f"{outputs.name}: {len(strangers)} pictures are of no case asked for, as "
            f"{shown(strangers[0])}; they were left out"
        )
        CONSOLE.print(f"[yellow]{escape(printable(said))}")


def _record_all(scoring: Scoring, run: RunDirectory) -> None:
    """Score the remaining cases, in the dataset's fixed batches."""
    ids, size = list(scoring.dataset.ids), scoring.batch_size
    with run.log() as log, run.claims() as claims:
        for repair in log.repairs:
            CONSOLE.print(f"[yellow]{escape(printable(repair))}", highlight=False)
        left = chunks_left(log, claims, ids, range(len(ids)), size)
        chunks = announced(left, claims, CONSOLE)
        title = f"scoring {escape(printable(scoring.outputs.name))}"
        for chunk in track(chunks, title, total=len(cuts(range(len(ids)), size)), console=CONSOLE):
            if isinstance(chunk, Waiting):
                time.sleep(PATIENCE)
                continue
            log.append_all(list(_scored_chunk(scoring, run, chunk)))
            claims.release(chunk.start, chunk.stop)


def _scored_chunk(scoring: Scoring, run: RunDirectory, chunk: Chunk) -> Iterator[Record]:
    """Those of the chunk that are left; the others are only scored beside them, as before."""
    pairs: dict[str, Pair] = {}
    for case_id in sorted(chunk.case_ids, key=lambda one: one not in chunk.left):
        if case_id not in chunk.left and not pairs:
            return  # none of those that are left can be scored
        try:
            pairs[case_id] = _pair(scoring, case_id)
        except CaseError as error:
            if case_id in chunk.left:
                yield Record(case=case_id, status="failed", error=str(error))
    batch = [pairs[case_id] for case_id in chunk.case_ids if case_id in pairs]
    yield from _scored(scoring, run, batch, chunk.left)


def _pair(scoring: Scoring, case_id: str) -> Pair:
    """The case, with a note of how its edited picture was read, and that picture."""
    case = scoring.dataset.load(case_id)
    paths = scoring.outputs.files.get(case_id, ())
    if not paths:
        raise CaseError(f"there is no edited picture of it in {scoring.outputs.root}")
    if len(paths) > 1:
        raise CaseError(f"there is more than one edited picture of it: {', '.join(paths)}")
    picture, notes = edited_picture(paths[0], scoring.outputs.root, scoring.rules)
    return replace(case, notes=(*case.notes, *notes)), picture


def _scored(
    scoring: Scoring, run: RunDirectory, pairs: Sequence[Pair], wanted: frozenset[str]
) -> Iterator[Record]:
    if not pairs:
        return
    cases = [case for case, _ in pairs]
    edited = from_uint8(np.stack([np.asarray(picture) for _, picture in pairs]))
    try:
        columns = score(scoring.metrics, cases, edited)
    except ENDS_THE_RUN:
        raise
    except Exception as error:  # noqa: BLE001 - one bad case must not end the run; it is recorded
        if len(pairs) == 1:
            yield _record(cases[0], status="failed", error=f"{type(error).__name__}: {error}")
        else:  # find the case that it fails for
            for pair in (one for one in pairs if one[0].id in wanted):
                yield from _scored(scoring, run, [pair], wanted)
        return
    for row, (case, picture) in enumerate(pairs):
        if case.id not in wanted:
            continue
        path, sha256 = run.save_picture(case.id, picture)
        numbers = {name: float(values[row]) for name, values in columns.items()}
        yield _record(case, status="ok", image=path, sha256=sha256, metrics=numbers)


def _record(case: Case, **found: Any) -> Record:
    return Record(
        case=case.id,
        edit_type=case.edit_type,
        edit_name=case.edit_name,
        source_prompt=case.source_prompt,
        target_prompt=case.target_prompt,
        instruction=case.instruction,
        notes=case.notes,
        **found,
    )
