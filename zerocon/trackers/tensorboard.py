"""TensorBoard as a tracker."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zerocon.core.records import Record
from zerocon.trackers.base import MAP, Curves, Images, TrackerError, check_counts, label


class TensorBoardTracker:
    """Writes each case as it is done, and the summary, to `dir`/tensorboard/<run>.

    `images`, `curves` and `maps` are the numbers of cases with their pictures (null: all), their
    losses over the steps, and the attention to the words of their prompts.
    """

    def __init__(
        self,
        dir: str = "outputs",  # noqa: A002 (the same word as for W&B)
        images: int | None = None,
        curves: int = 8,
        maps: int = 0,
    ) -> None:
        self.check_settings({"images": images, "curves": curves, "maps": maps})
        self.images, self.curves, self.maps = images, curves, maps
        self.directory = Path(dir) / "tensorboard"
        self._writer: Any = None
        self._cases = 0

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Check settings without creating a tracker."""
        check_counts(settings)

    def where(self) -> str:
        """The folder, and how to look at it."""
        return f"TensorBoard: tensorboard --logdir {shlex.quote(str(self.directory))}"

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
        few = self.images is not None and self._cases >= self.images
        shown = {k: v for k, v in images.items() if k.startswith(MAP) or not few}
        for name, image in shown.items():
            pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"{record.case}/{name}", pixels, dataformats="HWC")
        self._cases += 1
        self._writer.flush()

    def log_curves(self, case: str, curves: Curves) -> None:
        """One curve per loss and case, over the steps of the edit."""
        for name, curve in curves.items():
            for step, value in enumerate(curve):
                if math.isfinite(value):
                    self._writer.add_scalar(f"losses/{name}/{case}", value, step)

    def finish(self, summary: Mapping[str, Any]) -> None:
        for name, statistic in summary.get("metrics", {}).items():
            if statistic["mean"] is not None:
                self._writer.add_scalar(f"mean/{name}", statistic["mean"])
        lines = [
            f"| {label(column)} | {mean:.{column.get('digits', 3)}f} |"
            for column in summary.get("columns", ())
            if (mean := summary["metrics"].get(column["name"], {}).get("mean")) is not None
        ]
        if lines:
            self._writer.add_text(
                "summary", "\n".join(["| metric | mean |", "| --- | --- |", *lines])
            )
        self._writer.close()

    def fail(self, error: str) -> None:
        self._writer.add_text("error", error)
        self._writer.close()
