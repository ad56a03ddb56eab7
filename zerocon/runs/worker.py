"""What a worker does: cases through encode, invert, edit, decode and score, into records.

A case that fails becomes a failed record; the rest of its batch is edited. A batch
that does not fit into the memory is halved, and so are those after it. What can't work for any
case (a setting, a model that does not load, a full disk) is raised and ends the run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zerocon.backbones.base import Backbone, BackboneError, Prepares
from zerocon.config.settings import RunSettings
from zerocon.core.cases import Case, CaseError, Dataset, DatasetError
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.limits import AUTO
from zerocon.core.memory import NO_MEMORY, Memory
from zerocon.core.pictures import case_pictures, from_uint8, to_uint8
from zerocon.core.prompts import words_of
from zerocon.core.records import Record
from zerocon.directions.base import with_sources
from zerocon.inversions.base import Trajectory
from zerocon.ledger.cache import Cache, memory_of
from zerocon.ledger.records import save_image
from zerocon.metrics.base import Metric, Pictures, full_precision
from zerocon.runs.batches import BatchSize
from zerocon.runs.costs import Costs
from zerocon.runs.inverting import KIND, Inverter
from zerocon.runs.models import backbone_of, free_memory, metrics_of
from zerocon.runs.progress import Working
from zerocon.runs.shown import Shown, maps_of, wanted, watching

log = logging.getLogger(__name__)

NO_MASK = "the method edits within a mask, and this case has none; choose another method or dataset"
KEPT_FREE = 0.2  # share of the free memory that an automatic batch size leaves alone

ENDS_THE_RUN = (ConfigError, BackboneError, DatasetError)

Done = tuple[Record, dict[str, Image.Image]]


@dataclass(frozen=True)
class Loaded:
    """What a run needs in memory."""

    backbone: Backbone
    dataset: Dataset
    metrics: list[Metric]


@dataclass(frozen=True)
class Batch:
    """Cases ready to edit together, which of them are wanted, and records of the broken ones."""

    wanted: frozenset[str]
    cases: list[Case] = field(default_factory=list[Case])
    broken: list[Record] = field(default_factory=list[Record])


class StoppedError(Exception):
    """The run was interrupted while its pictures were read or stored."""


@dataclass(frozen=True)
class Edited:
    """An edited case before it is stored; or, without a picture, the record of its failure."""

    case: Case
    record: Mapping[str, Any]
    picture: NDArray[np.uint8] | None = None  # [y, x, 3]
    maps: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict[str, NDArray[np.uint8]])
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])


def load(settings: RunSettings) -> Loaded:
    if settings.runner.deterministic:
        only_deterministic()
    backbone = backbone_of(settings)
    dataset = settings.dataset(pixels=backbone.size)
    if isinstance(backbone, Prepares):
        backbone.expect(len(dataset.ids))
    return Loaded(backbone, dataset, metrics_of(settings))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch as an inversion and a sampler are given it."""

    cases: Sequence[Case]  # with the direction's own source prompts, if it writes some
    clean: Tensor  # the encoded pictures
    conditions: Conditions
    draws: Draws


def prepare(
    settings: RunSettings, backbone: Backbone, cases: Sequence[Case], memory: Memory = NO_MEMORY
) -> Prepared:
    clean = backbone.encode(torch.stack([case.image for case in cases]))
    # The direction finds the edited words by comparing the prompts as given.
    target = settings.direction(backbone, cases, memory)
    cases = with_sources(settings.direction, cases, memory)
    conditions = Conditions(
        source=backbone.embed([case.source_prompt for case in cases]),
        target=target,
        negative=backbone.embed([""] * len(cases)),
        words=[words_of(backbone, case) for case in cases],
        masks=masks_of(cases).to(clean.device) if settings.method.uses_mask else None,
    )
    return Prepared(cases, clean, conditions, Draws(settings.seed, [case.id for case in cases]))


def masks_of(cases: Sequence[Case]) -> Tensor:
    """[case, 1, row, column]"""
    found = [case.mask for case in cases if case.mask is not None]
    if len(found) < len(cases):
        raise CaseError(NO_MASK)
    return torch.stack(found)


def invert(
    settings: RunSettings, backbone: Backbone, batch: Prepared, memory: Memory = NO_MEMORY
) -> Trajectory:
    inverter = Inverter(settings.inversion, settings.config["inversion"], memory)
    steps = settings.method.steps
    return inverter(backbone, batch.cases, batch.clean, batch.conditions, steps, batch.draws)


def edit(
    settings: RunSettings,
    backbone: Backbone,
    cases: Sequence[Case],
    memory: Memory = NO_MEMORY,
    costs: Costs | None = None,
) -> Tensor:
    """The edited pictures of a batch, [case, 3, y, x]."""
    costs = costs or Costs()
    batch = prepare(settings, backbone, cases, memory)
    with costs.of("inversion", backbone):
        trajectory = invert(settings, backbone, batch, memory)
    with costs.of("editing", backbone):
        latents = settings.method(backbone, trajectory, batch.conditions, batch.draws)
    if not latents.isfinite().all():
        raise FloatingPointError("the edited latent has values that are not finite")
    return backbone.decode(latents)


def score(metrics: Sequence[Metric], cases: Sequence[Case], edited: Tensor) -> dict[str, Tensor]:
    """Every metric's columns, [case] each; computed where `edited` is."""
    pictures = Pictures.of(cases, edited)
    with full_precision():
        found = [metric(pictures) for metric in metrics]
    return {name: values.cpu() for columns in found for name, values in columns.items()}


class Editor:
    """A run's models, ready to edit whatever cases they are given: `load`, `compute`, `store`.

    Cases are edited in the batches they come in, or each alone if the run is deterministic. Those
    that are not wanted, because they are recorded already, are computed as part of their batch
    and then left out.
    """

    def __init__(self, settings: RunSettings, loaded: Loaded) -> None:
        self.settings, self.loaded, self.costs = settings, loaded, Costs()
        runner = settings.runner
        self.memory = memory_of(runner.cache_bytes)
        self._alone = runner.deterministic
        self._curved, self._mapped = (
            wanted(settings, what, loaded.dataset.ids) for what in ("curves", "maps")
        )
        self._fits = BatchSize(settings.directory, runner.batch_size, loaded.backbone.device)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Have other threads stop reading and storing pictures at the next one."""
        self._stopping.set()

    def load(self, case_ids: Sequence[str], wanted: frozenset[str]) -> Batch:
        """Read the wanted cases; the others of the batch only when one of these can be edited."""
        found: dict[str, Case] = {}
        broken: list[Record] = []
        for case_id in sorted(case_ids, key=lambda one: one not in wanted):
            if case_id not in wanted and not found:
                break
            self._go_on()
            try:
                case = self.loaded.dataset.load(case_id)
                if self.settings.method.uses_mask:
                    masks_of([case])
                found[case_id] = case
            except CaseError as error:
                if case_id in wanted:
                    broken.append(Record(case=case_id, status="failed", error=str(error)))
        return Batch(wanted, [found[case_id] for case_id in case_ids if case_id in found], broken)

    def compute(self, batch: Batch) -> list[Edited | Record]:
        """The batch's wanted cases edited and scored, in as many parts as the memory asks for."""
        finished: list[Edited | Record] = list(batch.broken)
        left = batch.cases
        while left:
            part = left[: self._size(left)]
            if not any(case.id in batch.wanted for case in part):
                left = left[len(part) :]
                continue
            done = self._edited(part, batch.wanted)
            if done is not None:
                finished += done
                left = left[len(part) :]
        return finished

    def store(self, finished: Sequence[Edited | Record]) -> Iterator[Done]:
        """Each picture on the disk, then its record."""
        for one in finished:
            self._go_on()
            if isinstance(one, Record):
                yield one, {}
                continue
            if one.picture is None:
                yield Record(**one.record), {}
                continue
            picture = Image.fromarray(one.picture)
            path, sha256 = save_image(self.settings.directory, one.case.id, picture)
            record = Record(**one.record, image=path, sha256=sha256)
            maps = {name: Image.fromarray(pixels) for name, pixels in one.maps.items()}
            pictures = case_pictures(one.case) | {"edited": picture} | maps
            yield record, Shown(pictures, one.curves)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise StoppedError

    def _size(self, cases: Sequence[Case]) -> int:
        if self._alone:
            return 1
        if not self._fits.known:
            self._fits.measured(self._room(cases[0]))
        return self._fits.cases

    def _room(self, case: Case) -> int:
        """How many cases fit into the free memory, going by what one takes."""
        device = self.loaded.backbone.device
        if device.type != "cuda":
            return AUTO
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        edit(self.settings, self.loaded.backbone, [case])
        taken = torch.cuda.max_memory_allocated(device) - before
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info(device)[0] * (1 - KEPT_FREE)
        return max(1, min(AUTO, int(free / taken)))

    def _edited(self, cases: list[Case], wanted: frozenset[str]) -> list[Edited] | None:
        """The wanted cases, edited; None if the batch is too large and must be split."""
        try:
            return [one for one in self._edit_and_score(cases) if one.case.id in wanted]
        except ENDS_THE_RUN:
            raise
        except Exception as error:  # noqa: BLE001 - one bad case must not end the run; it is recorded
            too_large = is_out_of_memory(error)
            failed = _failed(cases[0], error)
            if self._alone and "deterministic" in str(error):  # torch names the operation
                raise ConfigError(f"runner.deterministic=true can't be kept: {error}") from None
        # Decided outside of the handler: the error holds on to the memory.
        if len(cases) == 1:
            return [failed]
        if too_large:
            self._fits.halve(len(cases))
            free_memory()
            return None
        alone = [case for case in cases if case.id in wanted]  # whose fault was it?
        return [edited for case in alone for edited in self._edited([case], wanted) or ()]

    def _edit_and_score(self, cases: Sequence[Case]) -> list[Edited]:
        started = time.perf_counter()
        backbone = self.loaded.backbone
        curved = any(case.id in self._curved for case in cases)
        with (
            self.costs.batch(backbone, len(cases)),
            watching(self.settings, on=curved) as watcher,
        ):
            pictures = to_uint8(edit(self.settings, backbone, cases, self.memory, self.costs))
            self.costs.scoring()
            # Score the 8-bit pictures that are stored, so that the files reproduce the numbers.
            scores = score(self.loaded.metrics, cases, from_uint8(pictures).to(backbone.device))
        seconds = round((time.perf_counter() - started) / len(cases), 4)
        curves = watcher.curves(len(cases))
        return [
            Edited(
                case,
                _request(backbone, case)
                | {
                    "status": "ok",
                    "metrics": {name: float(values[row]) for name, values in scores.items()},
                    "seconds": seconds,
                },
                pictures[row],
                self._maps(case, pictures[row]),
                curves[row] if case.id in self._curved else {},
            )
            for row, case in enumerate(cases)
        ]

    def _maps(self, case: Case, picture: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        if case.id not in self._mapped:
            return {}
        edited = from_uint8(picture[None])[0]
        try:
            return maps_of(self.loaded.backbone, case, edited, self.settings.seed)
        except Exception as error:  # noqa: BLE001 (no case depends on what a tracker shows)
            log.warning("no attention maps of %s: %s", case.id, error)
            return {}

    def working(self) -> Working:
        """What is being done now, for progress."""
        return self.costs.working(self.loaded.backbone)

    def spent(self) -> dict[str, Any]:
        """What this editor's work cost so far, as `sessions.jsonl` holds it."""
        counts = self.memory.counts(KIND) if isinstance(self.memory, Cache) else None
        return self.costs.summary(self.loaded.backbone) | {
            "inversions_found": counts.found if counts else 0,
            "inversions_damaged": counts.damaged if counts else 0,
        }


def only_deterministic() -> None:
    """Have torch use deterministic algorithms only, and raise where there is none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False  # it would choose its algorithms by their speed


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "can't allocate memory" in said
    )


def _request(backbone: Backbone, case: Case) -> dict[str, Any]:
    """The request's fields of a record."""
    prompts = {"source": case.source_prompt, "target": case.target_prompt}
    cut = [
        f"the {which} prompt is longer than the text encoder reads; its end was cut off"
        for which, prompt in prompts.items()
        if backbone.too_long(prompt)
    ]
    return _asked(case) | {"notes": (*case.notes, *cut)}


def _asked(case: Case) -> dict[str, Any]:
    return {
        "case": case.id,
        "edit_type": case.edit_type,
        "edit_name": case.edit_name,
        "source_prompt": case.source_prompt,
        "target_prompt": case.target_prompt,
        "instruction": case.instruction,
        "notes": case.notes,
    }


def _failed(case: Case, error: Exception) -> Edited:
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
    return Edited(case, _asked(case) | {"status": "failed", "error": said})
