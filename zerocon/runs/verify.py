"""Is a run what its records say? The numbers, computed again from the stored pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zerocon.config.bind import build, metrics_of
from zerocon.config.settings import stored_config
from zerocon.core.cases import Case, CaseError, Dataset
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.pictures import from_uint8
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import Record, read_records, verify_checksums
from zerocon.metrics.base import Metric
from zerocon.runs.worker import score

OF_LAST_DIGIT = 0.01  # a difference of a hundredth of the last digit shown is none


@dataclass(frozen=True)
class Problem:
    """Something that is not as recorded."""

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
    """How far a number may be off: a share of itself, or next to nothing at its last digit."""

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
    """Every stored picture against its checksum, every number against its picture."""
    in_range("--batch", batch_size, 1)
    in_range("--tolerance", relative, 0)
    origin = origin_at(directory)
    records = read_records(directory)
    found = Verification(records=len(records))
    found.problems += _unrecorded(origin, records)
    broken = verify_checksums(directory, records)
    found.problems += [Problem(case, said) for case, said in broken.items()]
    whole = [r for r in records if r.image is not None and r.case not in broken]
    if not whole:
        return found
    judges = _judges(directory, overrides, side_of(directory, whole[0]), device)
    found.problems += changed_origin(origin, judges.dataset, judges.metrics)
    tolerance = Tolerance(relative, digits_of(origin))
    for batch in batched(whole, batch_size):
        _compare_batch(directory, batch, judges, tolerance, found)
    return found


def origin_at(directory: Path) -> Origin:
    origin = Origin.read(directory)
    if origin is None:
        raise ConfigError(f"{directory} is no run's directory: it has no run.json")
    return origin


def digits_of(origin: Origin) -> dict[str, int]:
    return {column["name"]: column["digits"] for column in origin.columns}


def side_of(directory: Path, record: Record) -> int:
    with Image.open(directory / str(record.image)) as picture:
        return picture.width


def stored_picture(
    directory: Path, record: Record
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """[side, side, 3]"""
    with Image.open(directory / str(record.image)) as picture:
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


def changed_origin(origin: Origin, dataset: Dataset, metrics: Sequence[Metric]) -> list[Problem]:
    """Is it the dataset, are they the judges, that the run was made with?"""
    now = {
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "judges": {type(m).__name__: m.fingerprint for m in metrics if m.fingerprint},
    }
    return [
        Problem("", f"the {what} recorded: {getattr(origin, what)}; now: {value}")
        for what, value in now.items()
        if getattr(origin, what) != value
    ]


def _judges(directory: Path, overrides: Sequence[str], side: int, device: str) -> Judges:
    config = stored_config(directory, overrides)
    dataset = build(config, "dataset", later=("side",))(side=side)
    return Judges(dataset, metrics_of(config)(), torch.device(device))


def _unrecorded(origin: Origin, records: Sequence[Record]) -> list[Problem]:
    recorded, wanted = {r.case for r in records}, set(origin.case_ids)
    missing = [
        Problem(case, "it has no record") for case in origin.case_ids if case not in recorded
    ]
    strange = [Problem(r.case, "it is none of the run's") for r in records if r.case not in wanted]
    bare = [Problem(r.case, "it has no picture") for r in records if r.ok and r.image is None]
    return missing + strange + bare


def _compare_batch(
    directory: Path,
    records: Sequence[Record],
    judges: Judges,
    tolerance: Tolerance,
    found: Verification,
) -> None:
    pairs = load_cases(judges.dataset, records, found.problems)
    if not pairs:
        return
    pictures = np.stack([stored_picture(directory, record) for record, _ in pairs])
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
