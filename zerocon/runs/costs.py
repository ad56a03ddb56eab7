"""The cost of a session: seconds, rows through the U-Net, and peak memory."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import torch

from zerocon.backbones.base import Backbone
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.progress import Working

STAGES: tuple[str, ...] = ("inversion", "editing")


class Costs:
    """Seconds and U-Net rows (a row: one latent, one forward pass) of each stage."""

    def __init__(self) -> None:
        self.seconds = dict[str, float].fromkeys(STAGES, 0.0)
        self.forward = dict[str, int].fromkeys(STAGES, 0)
        self.backward = dict[str, int].fromkeys(STAGES, 0)
        self.reference = dict[str, int].fromkeys(
            STAGES, 0
        )  # of the forward: rows of the source branch
        self.stage, self._cases, self._before = "", 0, 0
        self._per_case: dict[str, float] = {}

    @contextmanager
    def batch(self, backbone: Backbone, cases: int) -> Generator[None]:
        """Count for progress what one batch takes."""
        self._cases, self._before = cases, _rows(backbone)
        try:
            yield
        finally:
            self.stage, self._cases = "", 0

    def scoring(self) -> None:
        """Note for progress that the batch has passed the network and is scored."""
        self.stage = "scoring"

    def working(self, backbone: Backbone) -> Working:
        """What is being done now; asked for by another thread."""
        rows = _rows(backbone)
        batch = rows - self._before if self._cases else 0
        return Working(self.stage, self._cases, batch, rows, dict(self._per_case))

    @contextmanager
    def of(self, stage: str, backbone: Backbone) -> Generator[None]:
        counted = backbone.evaluations
        forward, backward, reference = counted.forward, counted.backward, counted.reference
        started = _now(backbone)
        self.stage = stage
        yield
        self.stage = ""
        self.seconds[stage] += _now(backbone) - started
        self.forward[stage] += counted.forward - forward
        self.backward[stage] += counted.backward - backward
        self.reference[stage] += counted.reference - reference
        if self._cases:
            rows = counted.forward - forward + counted.backward - backward
            self._per_case[stage] = rows / self._cases

    def summary(self, backbone: Backbone) -> dict[str, Any]:
        return {
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "unet_forward": self.forward,
            "unet_backward": self.backward,
            "unet_reference": self.reference,
            "peak_bytes": _peak(backbone.device),
        }


def _rows(backbone: Backbone) -> int:
    return backbone.evaluations.forward + backbone.evaluations.backward


def rows_of(spent: Mapping[str, Any]) -> int:
    """The rows in a worker's costs, forward and backward."""
    return sum(sum(spent.get(way, {}).values()) for way in ("unet_forward", "unet_backward"))


def _now(backbone: Backbone) -> float:
    """The time in seconds, after the device has finished its queued work."""
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
    return time.perf_counter()


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def note_session(run: RunDirectory, started: datetime, spent: Mapping[str, Any]) -> None:
    """Store the cost of a session or of a worker in it, if the run was begun."""
    when = {"started": started.isoformat(timespec="seconds"), "ended": now(), "pid": os.getpid()}
    run.note_session(when | dict(spent))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def cost_in_words(spent: Mapping[str, Any]) -> str:
    """One line: seconds and rows of each stage, and the peak memory."""
    seconds, forward, backward = (
        spent.get(what, {}) for what in ("seconds", "unet_forward", "unet_backward")
    )
    stages = [
        f"{stage} {seconds.get(stage, 0):.1f} s, "
        f"{forward.get(stage, 0) + backward.get(stage, 0):,} evaluations"
        for stage in STAGES
    ]
    peak = f"peak memory {(spent.get('peak_bytes') or 0) / 2**20:,.0f} MiB"
    found = spent.get("inversions_found", 0)
    cached = [f"{found} inversions from the cache"] if found else []
    return "; ".join([*stages, *cached, peak])
