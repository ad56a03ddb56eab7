"""Weights & Biases as a tracker."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from uuid import uuid4

from PIL import Image

from zerocon.core.checks import in_range
from zerocon.core.records import Record
from zerocon.trackers.base import MAP, Curves, Images, TrackerError, check_counts, label

Mode = Literal["offline", "online", "disabled"]

SCRATCH = "zerocon-wandb-"  # followed by the id of the folder's process
_LINUX = sys.platform.startswith("linux")  # has /proc, which lists the processes

PICTURES = ("source", "edited", "truth")
TEXTS = ("case", "status", "error", "edit_name", "source_prompt", "target_prompt", "instruction")


class WandbTracker:
    """Logs config, each case as it is done, a table of all cases, and the summary.

    The first `images` cases have their pictures (null: all), the first `curves` cases their
    losses over the steps, and the first `maps` cases the attention to each word of the prompts.

    Offline, everything is written to `dir`/wandb, from where `wandb sync` can upload it at any
    time, unless the folder was moved (wandb stores the paths of the table's pictures).
    `patience` limits each wait for a server that does not answer, in seconds; data not sent by
    then stays in `dir`/wandb, too.
    """

    def __init__(
        self,
        project: str = "zerocon",
        mode: Mode = "offline",
        dir: str = "outputs",  # noqa: A002 (wandb's name for it)
        patience: float = 20.0,
        images: int | None = None,
        curves: int = 8,
        maps: int = 0,
    ) -> None:
        self.check_settings({"patience": patience, "curves": curves, "maps": maps})
        self.images, self.curves, self.maps = images, curves, maps
        self.project, self.directory, self.patience = project, Path(dir), patience
        self.mode: Mode = mode
        self._run: Any = None
        self._rows: list[dict[str, Any]] = []
        self._scratch = TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-")
        _clear_scratch_of_killed(Path(self._scratch.name).parent)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Check settings without creating a tracker."""
        if "patience" in settings:
            in_range("tracker.patience", settings["patience"], 1)
        check_counts(settings)

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None:
        import wandb

        self.directory.mkdir(parents=True, exist_ok=True)
        # The table's pictures stay there until synced; wandb's default is the user's home.
        os.environ.setdefault("WANDB_DATA_DIR", str((self.directory / "wandb").resolve()))
        wandb.setup(settings=_settings(self.patience))
        if self.mode == "online":
            _log_in(self.patience)
        self._run = wandb.init(
            project=self.project,
            name=name,
            group=group or None,
            config=dict(config),
            mode=self.mode,
            dir=str(self.directory),
            settings=_settings(self.patience),
        )

    def where(self) -> str:
        """The run's page, or its folder and how to upload it."""
        if self.mode == "disabled":
            return ""
        if self._run.url:
            return f"W&B: {self._run.url}"
        folder = Path(self._run.dir).parent
        return f"W&B, offline: {folder}; upload it with: wandb sync {shlex.quote(str(folder))}"

    def log_case(self, record: Record, images: Images) -> None:
        numbers = {k: v for k, v in record.metrics.items() if math.isfinite(v)}
        shown = images if self.images is None or len(self._rows) < self.images else {}
        pictures = {name: self._picture(shown.get(name), record.case) for name in PICTURES}
        self._rows.append(
            {name: getattr(record, name) for name in TEXTS}
            | pictures
            | {"seconds": record.seconds}
            | numbers
        )
        failed = sum(row["status"] == "failed" for row in self._rows)
        progress = {"cases/done": len(self._rows), "cases/failed": failed}
        seen = {f"pictures/{name}": one for name, one in pictures.items() if one is not None}
        maps = self._maps(record.case, images)
        self._run.log(progress | {f"case/{k}": v for k, v in numbers.items()} | seen | maps)

    def _maps(self, case: str, images: Images) -> dict[str, Any]:
        named = {name: image for name, image in images.items() if name.startswith(MAP)}
        pictures = [self._picture(image, name.removeprefix(MAP)) for name, image in named.items()]
        return {f"maps/{case}": pictures} if pictures else {}

    def log_curves(self, case: str, curves: Curves) -> None:
        """One curve per loss and case, over the steps of the edit."""
        self._run.define_metric("losses/step", hidden=True)
        for name in curves:
            self._run.define_metric(f"losses/{name}/{case}", step_metric="losses/step")
        for step in range(max(map(len, curves.values()), default=0)):
            values = {f"losses/{name}/{case}": curve[step] for name, curve in curves.items()}
            finite = {name: value for name, value in values.items() if math.isfinite(value)}
            self._run.log({"losses/step": step} | finite)

    def finish(self, summary: Mapping[str, Any]) -> None:
        said = {name: value for name, value in summary.items() if name != "columns"}
        self._run.summary.update(said)
        for column in summary.get("columns", ()):
            statistic = summary.get("metrics", {}).get(column["name"])
            if statistic and statistic["mean"] is not None:
                self._run.summary[f"mean/{label(column)}"] = statistic["mean"]
        self._end(0)

    def fail(self, error: str) -> None:
        self._run.summary["error"] = error
        self._end(1)

    def _end(self, exit_code: int) -> None:
        """End the run, with the table of all finished cases."""
        if self._rows:
            self._run.log({"cases/table": self._as_table()})
        self._run.finish(exit_code=exit_code)
        self._scratch.cleanup()

    def _picture(self, image: Image.Image | None, caption: str) -> Any:
        """Store the picture on disk until the table is sent, to save memory in long runs."""
        import wandb

        if image is None:
            return None
        path = Path(self._scratch.name) / f"{uuid4().hex}.png"
        image.save(path)
        return wandb.Image(str(path), caption=caption)

    def _as_table(self) -> Any:
        import wandb

        columns: list[str | int] = list(dict.fromkeys(name for row in self._rows for name in row))
        data: Any = [[row.get(str(name)) for name in columns] for row in self._rows]
        return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _clear_scratch_of_killed(folder: Path) -> None:
    """Remove pictures left behind by trackers of processes that no longer exist."""
    for scratch in folder.glob(f"{SCRATCH}*"):
        process = scratch.name.removeprefix(SCRATCH).partition("-")[0]
        if _LINUX and process.isdigit() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _settings(patience: float) -> Any:
    """Quiet and with short timeouts: wandb's defaults retry for hours."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=patience,
        finish_timeout=patience,
        x_graphql_retry_max=1,
        x_graphql_timeout_seconds=patience / 2,
        x_file_transfer_retry_max=1,
    )


def _log_in(patience: float) -> None:
    """Log in, or raise if there is no key, for which wandb would prompt."""
    import wandb

    if not wandb.login(prompt=False, verify=False, timeout=int(patience)):
        raise TrackerError("no W&B key: run `wandb login`, or use tracker.mode=offline")
