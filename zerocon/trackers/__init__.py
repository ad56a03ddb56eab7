"""Trackers: copies of a run's data outside of its directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.trackers.base import NoTracker
    from zerocon.trackers.tensorboard import TensorBoardTracker
    from zerocon.trackers.wandb import WandbTracker

__all__ = ["NoTracker", "TensorBoardTracker", "WandbTracker"]

__getattr__ = offer(
    __name__,
    tracker={
        "NoTracker": "base",
        "TensorBoardTracker": "tensorboard",
        "WandbTracker": "wandb",
    },
)
