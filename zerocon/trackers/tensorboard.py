"""TensorBoard as a tracker."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zerocon.core.records import Record
from zerocon.trackers.base import Images, TrackerError


class TensorBoardTracker:
    """Writes each case's numbers and pictures, and the summary, to `dir`/tensorboard/<run>."""

    def __init__(self, dir: str = "outputs") -> None:  # noqa: A002 (the same word as for W&B)
        self.directory = Path(dir) / "tensorboard"
        self._writer: Any = None
        self._cases = 0

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            raise TrackerError(
                "tracker=tensorboard needs TensorBoard: pip install 'zerocon[tensorboard]'"
            ) from None
        self._writer = SummaryWriter(str(self.directory / name))
        self._writer.add_text("config", f"```\n{json.dumps(dict(config), indent=2)}\n```")

    def log_case(self, record: Record, images: Images) -> None:
        for name, value in record.metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(f"case/{name}", value, self._cases)
        for name, image in images.items():
            pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"{record.case}/{name}", pixels, dataformats="HWC")
        self._cases += 1

    def finish(self, summary: Mapping[str, Any]) -> None:
        for name, statistic in summary.get("metrics", {}).items():
            if statistic["mean"] is not None:
                self._writer.add_scalar(f"mean/{name}", statistic["mean"])
        self._writer.close()

    def fail(self, error: str) -> None:
        self._writer.add_text("error", error)
        self._writer.close()
