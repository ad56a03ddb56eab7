"""Finished runs are uploaded once to a tracker, from their records."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from zerocon.cli import main
from zerocon.core.records import Record
from zerocon.core.registry import register
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import RecordLog, save_image
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs.mirror import sync
from zerocon.trackers import tensorboard
from zerocon.trackers.base import NoTracker, TrackerError

TOLD: list[tuple[Any, ...]] = []
CONFIG = {"_target_": f"{__name__}.Notes"}


@register("tracker")
class Notes(NoTracker):
    """Records its calls."""

    def start(self, config: Mapping[str, Any], name: str, group: str) -> None:
        TOLD.append(("start", config["method"]["steps"], name, group))

    def log_case(self, record: Record, images: Mapping[str, Image.Image]) -> None:
        TOLD.append((record.case, {name: image.size for name, image in images.items()}))

    def finish(self, summary: Mapping[str, Any]) -> None:
        TOLD.append(("finish", summary["metrics"]["psnr"]["mean"], summary["failed"]))


@register("tracker")
class Unreachable(NoTracker):
    def start(self, config: Mapping[str, Any], name: str, group: str) -> None:
        raise OSError("no route to host")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    TOLD.clear()
    directory = tmp_path / "pnp-1234"
    column = {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2}
    RunDirectory(directory).write_origin(
        Origin("pnp", ["a", "b"], [column], "masked", {}, {}, {}, False, {})
    )
    (directory / "config.yaml").write_text("name: pnp\nmethod: {steps: 7}\n")
    with RecordLog(directory) as log:
        image, sha256 = save_image(directory, "a", Image.new("RGB", (4, 4)))
        log.append(Record(case="a", status="ok", image=image, sha256=sha256, metrics={"psnr": 9.0}))
    return directory


def add_failed(run: Path) -> None:
    with RecordLog(run) as log:
        log.append(Record(case="b", status="failed", error="no mask"))


def test_a_run_is_uploaded_once(run: Path) -> None:
    add_failed(run)
    assert sync(run, CONFIG)
    assert TOLD == [
        ("start", 7, "pnp-1234", "pnp"),
        ("a", {"edited": (4, 4)}),
        ("b", {}),
        ("finish", 9.0, 1),
    ]
    assert not sync(run, CONFIG)
    assert len(TOLD) == 4


def test_later_records_are_uploaded_too(run: Path) -> None:
    assert sync(run, CONFIG)
    add_failed(run)
    assert sync(run, CONFIG)


def test_an_upload_that_fails_is_tried_again(run: Path) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="no route"):
            sync(run, {"_target_": f"{__name__}.Unreachable"})


def test_the_command_skips_unfinished_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["track", "sync", str(run), "--set", "tracker=none"]
    main(command)
    assert "not finished" in capsys.readouterr().out
    add_failed(run)
    main(command)
    main(command)
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "uploaded",
        "already uploaded",
    ]


def test_missing_tensorboard_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(TrackerError, match=r"zerocon\[tensorboard\]"):
        tensorboard.TensorBoardTracker(str(tmp_path)).start({}, "run", "group")
