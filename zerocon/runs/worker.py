"""What a worker does: cases through encode, invert, edit, decode and score, into records.

A case that fails becomes a failed record; its batch-mates are edited all the same. A batch
that does not fit into the memory is halved, and so are those after it.
"""

from __future__ import annotations

import gc
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

from zerocon.backbones.base import Backbone
from zerocon.config.settings import RunSettings
from zerocon.core.cases import Case, CaseError, Dataset
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.limits import AUTO
from zerocon.core.pictures import case_pictures, from_uint8, to_uint8
from zerocon.core.prompts import words_of
from zerocon.directions.base import with_sources
from zerocon.ledger.cache import Cache, allow
from zerocon.ledger.records import Record, save_image
from zerocon.metrics.base import Metric, Pictures, full_precision
from zerocon.runs.costs import Costs
from zerocon.runs.inverting import KIND, Inverter

KEPT_FREE = 0.2  # share of the free memory that an automatic batch size leaves alone

Pics = dict[str, Image.Image]
Done = tuple[Record, Pics]


@dataclass(frozen=True)
class Loaded:
    """What a run needs in memory."""

    backbone: Backbone
    dataset: Dataset
    metrics: list[Metric]


@dataclass(frozen=True)
class Batch:
    """Cases ready to edit, and records of those that can't be."""

    cases: list[Case] = field(default_factory=list[Case])
    broken: list[Record] = field(default_factory=list[Record])


@dataclass(frozen=True)
class Edited:
    """An edited case before it is stored; or, without a picture, the record of its failure."""

    case: Case
    record: Mapping[str, Any]
    picture: NDArray[np.uint8] | None = None  # [side, side, 3]


def load(settings: RunSettings) -> Loaded:
    backbone = settings.backbone.load()
    return Loaded(backbone, settings.dataset(side=backbone.side), settings.metrics())


def edit(
    settings: RunSettings,
    backbone: Backbone,
    cases: Sequence[Case],
    invert: Inverter | None = None,
    costs: Costs | None = None,
) -> Tensor:
    """The edited pictures of a batch, [case, 3, side, side]."""
    invert = invert or inverter_of(settings)
    costs = costs or Costs()
    clean = backbone.encode(torch.stack([case.image for case in cases]))
    # The direction finds what is edited between the prompts as they were given.
    target = settings.direction(backbone, cases)
    cases = with_sources(settings.direction, cases)
    conditions = Conditions(
        source=backbone.embed([case.source_prompt for case in cases]),
        target=target,
        negative=backbone.embed([""] * len(cases)),
        words=[words_of(backbone, case) for case in cases],
    )
    method = settings.method
    draws = Draws(settings.seed, [case.id for case in cases])
    with costs.of("inversion", backbone):
        trajectory = invert(backbone, cases, clean, conditions, method.steps, draws)
    with costs.of("editing", backbone):
        latents = method(backbone, trajectory, conditions, draws)
    if not latents.isfinite().all():
        raise FloatingPointError("the edited latent has values that are not finite")
    return backbone.decode(latents)


def inverter_of(settings: RunSettings, cache: Cache | None = None) -> Inverter:
    return Inverter(settings.inversion, settings.config["inversion"], cache)


def score(metrics: Sequence[Metric], cases: Sequence[Case], edited: Tensor) -> dict[str, Tensor]:
    """Every metric's columns, [case] each; computed where `edited` is."""
    pictures = Pictures.of(cases, edited)
    with full_precision():
        found = [metric(pictures) for metric in metrics]
    return {name: values.cpu() for columns in found for name, values in columns.items()}


class Editor:
    """A run's models, ready to edit whatever cases they are given: `load`, `compute`, `store`."""

    def __init__(self, settings: RunSettings, loaded: Loaded) -> None:
        self.settings, self.loaded, self.costs = settings, loaded, Costs()
        most = settings.runner.cache_bytes
        allow(most)
        self.cache = Cache(KIND, most) if most else None
        self._invert = inverter_of(settings, self.cache)
        self._limit = settings.runner.batch_size  # halved when the memory is too small

    def __call__(self, case_ids: Sequence[str]) -> list[Done]:
        return list(self.store(self.compute(self.load(case_ids))))

    def load(self, case_ids: Sequence[str]) -> Batch:
        batch = Batch()
        for case_id in case_ids:
            try:
                batch.cases.append(self.loaded.dataset.load(case_id))
            except CaseError as error:
                batch.broken.append(Record(case=case_id, status="failed", error=str(error)))
        return batch

    def compute(self, batch: Batch) -> list[Edited | Record]:
        """The batch edited and scored, in as many parts as the memory asks for."""
        finished: list[Edited | Record] = list(batch.broken)
        left = batch.cases
        while left:
            part = left[: self._size(left)]
            done = self._edited(part)
            finished += done
            left = left[len(part) :] if done else left
        return finished

    def store(self, finished: Sequence[Edited | Record]) -> Iterator[Done]:
        """Each picture on the disk, then its record."""
        for one in finished:
            if isinstance(one, Record):
                yield one, {}
                continue
            if one.picture is None:
                yield Record(**one.record), {}
                continue
            picture = Image.fromarray(one.picture)
            path, sha256 = save_image(self.settings.directory, one.case.id, picture)
            record = Record(**one.record, image=path, sha256=sha256)
            yield record, case_pictures(one.case) | {"edited": picture}

    def _size(self, cases: Sequence[Case]) -> int:
        if self._limit == "auto":
            self._limit = self._measured(cases[0])
        return int(self._limit)

    def _measured(self, case: Case) -> int:
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

    def _edited(self, cases: list[Case]) -> list[Edited]:
        """The cases edited; nothing when they are too many, and fewer are to be tried."""
        try:
            return self._edit_and_score(cases)
        except ConfigError:
            raise  # a setting that no case can be edited with
        except Exception as error:  # noqa: BLE001 - one bad case must not end the run; it is recorded
            if len(cases) == 1:
                return [_failed(cases[0], error)]
            too_many = is_out_of_memory(error)
        if too_many:  # decided outside: the error holds on to the memory
            self._limit = len(cases) // 2
            _free_memory()
            return []
        return [edited for case in cases for edited in self._edited([case])]  # whose fault was it?

    def _edit_and_score(self, cases: Sequence[Case]) -> list[Edited]:
        started = time.perf_counter()
        backbone = self.loaded.backbone
        pictures = to_uint8(edit(self.settings, backbone, cases, self._invert, self.costs))
        # Scored as they are stored, so that the numbers can be had again from the files.
        scores = score(self.loaded.metrics, cases, from_uint8(pictures).to(backbone.device))
        seconds = round((time.perf_counter() - started) / len(cases), 4)
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
            )
            for row, case in enumerate(cases)
        ]

    def spent(self) -> dict[str, Any]:
        """What this editor's work cost so far, as `sessions.jsonl` tells it."""
        counts = self.cache.counts if self.cache else None
        return self.costs.told(self.loaded.backbone) | {
            "inversions_found": counts.found if counts else 0,
            "inversions_damaged": counts.damaged if counts else 0,
        }


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in said or "can't allocate memory" in said
    )


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _request(backbone: Backbone, case: Case) -> dict[str, Any]:
    """What was asked, as the record tells it."""
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
