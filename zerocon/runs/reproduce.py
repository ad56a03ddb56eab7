"""Edit a few of a run's cases again from its stored config, and compare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zerocon.config.settings import RunSettings, stored_settings
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError, in_range
from zerocon.core.pictures import from_uint8, to_uint8
from zerocon.core.records import Record
from zerocon.ledger.identity import identity_of
from zerocon.ledger.origin import Origin
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.results import origin_of, with_inputs
from zerocon.runs.verify import Problem, batched, load_cases, stored_picture
from zerocon.runs.worker import Loaded, edit, load, score

Levels = NDArray[np.uint8]


@dataclass(frozen=True)
class Again:
    """One case, then and now."""

    case: str
    differing: float  # share of the pixels
    largest: int  # difference, in levels of 256
    psnr: float  # of the picture now against the one stored, in dB
    metrics: Mapping[str, tuple[float, float]]  # (recorded, now)


@dataclass
class Reproduction:
    changed: list[str] = field(default_factory=list[str])  # what has changed, in words
    cases: list[Again] = field(default_factory=list[Again])
    problems: list[Problem] = field(default_factory=list[Problem])


def reproduce(directory: Path, overrides: Sequence[str] = (), *, cases: int = 5) -> Reproduction:
    """Edit `cases` of the run's cases again, spread over the run, and compare. Writes nothing."""
    in_range("--cases", cases, 1)
    run = RunDirectory(directory)
    origin = run.origin
    settings = stored_settings(directory, overrides)
    records = spread([r for r in run.records() if r.image is not None], cases)
    if not records:
        raise ConfigError(f"{directory} has no edited picture to compare with")
    loaded = load(settings)
    now = origin_of(settings, loaded.backbone, loaded.dataset, loaded.metrics)
    now = with_inputs(now, identity_of(settings.config, loaded.dataset))
    found = Reproduction(changed=differences(origin, now))
    broken = run.damaged_pictures(records, thoroughly=True)
    found.problems += [Problem(case, said) for case, said in broken.items()]
    whole = [record for record in records if record.case not in broken]
    for batch in batched(whole, settings.runner.edited_together):
        pairs = load_cases(loaded.dataset, batch, found.problems)
        found.cases += _edited_again(run, settings, loaded, pairs)
    return found


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """`count` of them at even distances, the first among them."""
    count = min(count, len(records))
    return [records[i * len(records) // count] for i in range(count)]


def differences(before: Origin, now: Origin) -> list[str]:
    """Describe every difference between the two runs' origins."""
    then_flat, now_flat = _flat(asdict(before)), _flat(asdict(now))
    return [
        f"{name}: then {then_flat.get(name)}, now {now_flat.get(name)}"
        for name in sorted(then_flat.keys() | now_flat.keys())
        if then_flat.get(name) != now_flat.get(name)
    ]


def _flat(origin: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for name, value in origin.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def _edited_again(
    run: RunDirectory, settings: RunSettings, loaded: Loaded, pairs: Sequence[tuple[Record, Case]]
) -> Iterator[Again]:
    if not pairs:
        return
    cases = [case for _, case in pairs]
    pictures = to_uint8(edit(settings, loaded.backbone, cases))
    edited = from_uint8(pictures).to(loaded.backbone.device)
    scores = score(loaded.metrics, cases, edited)
    for row, (record, _) in enumerate(pairs):
        now = {name: float(values[row]) for name, values in scores.items()}
        both = {n: (record.metrics[n], now[n]) for n in record.metrics if n in now}
        yield compared(record.case, stored_picture(run, record), pictures[row], both)


def compared(
    case: str, before: Levels, after: Levels, metrics: Mapping[str, tuple[float, float]]
) -> Again:
    """Two pictures, [y, x, 3]."""
    distance = np.abs(before.astype(np.int64) - after.astype(np.int64))
    squared = float(np.square(distance / 255).mean())
    return Again(
        case,
        differing=float(distance.any(axis=2).mean()),
        largest=int(distance.max()),
        psnr=-10 * math.log10(squared) if squared else math.inf,
        metrics=metrics,
    )
