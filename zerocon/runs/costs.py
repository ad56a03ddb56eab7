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

    @contextmanager
    def of(self, stage: str, backbone: Backbone) -> Generator[None]:
        counted = backbone.evaluations
        forward, backward, reference = counted.forward, counted.backward, counted.reference
        started = _now(backbone)
        yield
        self.seconds[stage] += _now(backbone) - started
        self.forward[stage] += counted.forward - forward
        self.backward[stage] += counted.backward - backward
        self.reference[stage] += counted.reference - reference

    def summary(self, backbone: Backbone) -> dict[str, Any]:
        return {
            "seconds": {stage: round(value, 3) for stage, value in self.seconds.items()},
            "unet_forward": self.forward,
            "unet_backward": self.backward,
            "unet_reference": self.reference,
            "peak_bytes": _peak(backbone.device),
        }


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
