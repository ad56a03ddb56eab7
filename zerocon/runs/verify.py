"""Compute a run's numbers again from its stored pictures, and compare."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerocon.config.bind import build, metrics_of
from zerocon.config.settings import stored_config
from zerocon.core.cases import Case, CaseError, Dataset
from zerocon.core.checks import in_range
from zerocon.core.pictures import from_uint8
from zerocon.core.records import Record
from zerocon.core.size import Size
from zerocon.ledger.identity import changes, identity_of
from zerocon.ledger.origin import Origin
from zerocon.ledger.run_directory import RunDirectory
from zerocon.metrics.base import Metric
from zerocon.runs.inputs import UNRECORDED
from zerocon.runs.results import judges_of
from zerocon.runs.worker import score

OF_LAST_DIGIT = 0.01  # differences below 1/100 of the last digit shown are ignored


@dataclass(frozen=True)
class Problem:
    """A mismatch with the records."""

    case: str  # "" for the run as a whole
    said: str

    def __str__(self) -> str:
        return f"case {self.case}: {self.said}" if self.case else self.said


@dataclass
class Verification:
    """What was looked at, and what was found."""

    records: int = 0
    scored: int = 0  # pictures that were scored again
    numbers: int = 0  # that were compared
    largest: dict[str, float] = field(default_factory=dict[str, float])  # column -> difference
    problems: list[Problem] = field(default_factory=list[Problem])


@dataclass(frozen=True)
class Tolerance:
    """How far a number may differ: a relative share, or 1/100 of the last digit shown."""

    relative: float
    digits: Mapping[str, int]  # column -> digits shown

    def allows(self, column: str, a: float, b: float) -> bool:
        if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
            return a == b or (math.isnan(a) and math.isnan(b))
        least = OF_LAST_DIGIT * 10.0 ** -self.digits.get(column, 6)
        return abs(a - b) <= max(least, self.relative * max(abs(a), abs(b)))


@dataclass(frozen=True)
class Judges:
    """What a run's pictures are scored with."""

    config: Mapping[str, Any]
    dataset: Dataset
    metrics: list[Metric]
    device: torch.device


def verify(
    directory: Path,
    overrides: Sequence[str] = (),
    *,
    relative: float = 1e-4,
    batch_size: int = 16,
    device: str = "cpu",
) -> Verification:
    """Check every stored picture against its checksum and every number against its picture."""
    in_range("--batch", batch_size, 1)
    in_range("--tolerance", relative, 0)
    run = RunDirectory(directory)
    origin, records = run.origin, run.records()
    found = Verification(records=len(records))
    found.problems += _unrecorded(origin, records)
    broken = run.damaged_pictures(records, thoroughly=True)
    found.problems += [Problem(case, said) for case, said in broken.items()]
    whole = [r for r in records if r.image is not None and r.case not in broken]
    if not whole:
        return found
    with run.picture(whole[0]) as picture:
        judges = _judges(run, overrides, Size.of(picture), device)
    found.problems += changed_since(run, judges)
    tolerance = Tolerance(relative, digits_of(origin))
    for batch in batched(whole, batch_size):
        _compare_batch(run, batch, judges, tolerance, found)
    return found


def digits_of(origin: Origin) -> dict[str, int]:
    return {column["name"]: column["digits"] for column in origin.columns}


def stored_picture(
    run: RunDirectory, record: Record
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """[y, x, 3]"""
    with run.picture(record) as picture:
        return np.asarray(picture.convert("RGB"))


def batched(records: Sequence[Record], size: int) -> Iterator[list[Record]]:
    left = iter(records)
    while batch := list(itertools.islice(left, size)):
        yield batch


def load_cases(
    dataset: Dataset, records: Sequence[Record], problems: list[Problem]
) -> list[tuple[Record, Case]]:
    """With their cases; one that can't be loaded is a problem."""
    pairs: list[tuple[Record, Case]] = []
    for record in records:
        try:
            pairs.append((record, dataset.load(record.case)))
        except CaseError as error:
            problems.append(Problem(record.case, f"it can't be loaded any more: {error}"))
    return pairs


def changed_since(run: RunDirectory, judges: Judges) -> list[Problem]:
    """Check that the dataset and the judges are those that the run was made with."""
    before, now = run.origin.judges, judges_of(judges.metrics)
    problems = [Problem("", f"the judges recorded: {before}; now: {now}")] if before != now else []
    if run.inputs is None:
        return [*problems, Problem("", f"its dataset can't be compared: {UNRECORDED}")]
    inputs = identity_of(judges.config, judges.dataset)
    return problems + [Problem("", said) for said in changes(run.inputs, inputs)]


def _judges(run: RunDirectory, overrides: Sequence[str], pixels: Size, device: str) -> Judges:
    config = stored_config(run.path, overrides)
    dataset = build(config, "dataset", later=("pixels",))(pixels=pixels)
    return Judges(config, dataset, metrics_of(config)(), torch.device(device))


def _unrecorded(origin: Origin, records: Sequence[Record]) -> list[Problem]:
    recorded, wanted = {r.case for r in records}, set(origin.case_ids)
    missing = [
        Problem(case, "it has no record") for case in origin.case_ids if case not in recorded
    ]
    strange = [Problem(r.case, "it is none of the run's") for r in records if r.case not in wanted]
    bare = [Problem(r.case, "it has no picture") for r in records if r.ok and r.image is None]
    return missing + strange + bare


def _compare_batch(
    run: RunDirectory,
    records: Sequence[Record],
    judges: Judges,
    tolerance: Tolerance,
    found: Verification,
) -> None:
    pairs = load_cases(judges.dataset, records, found.problems)
    if not pairs:
        return
    pictures = np.stack([stored_picture(run, record) for record, _ in pairs])
    edited = from_uint8(pictures).to(judges.device)
    scores = score(judges.metrics, [case for _, case in pairs], edited)
    found.scored += len(pairs)
    for row, (record, _) in enumerate(pairs):
        now = {name: float(values[row]) for name, values in scores.items()}
        _compare(record, now, tolerance, found)


def _compare(
    record: Record, now: Mapping[str, float], tolerance: Tolerance, found: Verification
) -> None:
    for name in sorted(record.metrics.keys() ^ now.keys()):
        which = "is not computed any more" if name in record.metrics else "was not recorded"
        found.problems.append(Problem(record.case, f"{name} {which}"))
    for name in sorted(record.metrics.keys() & now.keys()):
        before, after = record.metrics[name], now[name]
        found.numbers += 1
        if math.isfinite(before) and math.isfinite(after):
            found.largest[name] = max(found.largest.get(name, 0.0), abs(before - after))
        if not tolerance.allows(name, before, after):
            said = f"{name} was recorded as {before:.6g}; its picture gives {after:.6g}"
            found.problems.append(Problem(record.case, said))
