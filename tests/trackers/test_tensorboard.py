"""What TensorBoard shows of a run, read back from its event file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from zerocon.core.records import Record
from zerocon.trackers.tensorboard import TensorBoardTracker


def test_it_shows_numbers_pictures_and_how_it_ended(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start({"method": {"steps": 7}}, "run-1234", "run")
    for case, psnr in (("a", 20.5), ("b", math.inf), ("c", 30.0)):
        record = Record(case=case, status="ok", metrics={"psnr": psnr})
        tracker.log_case(record, {"edited": Image.new("RGB", (8, 8), "red")})
    tracker.log_curves("a", {"cut": [0.75, math.nan, 0.5]})
    column = {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2}
    means = {"psnr": {"mean": 25.25}, "ssim": {"mean": None}}
    tracker.finish({"metrics": means, "columns": [column]})
    shown = EventAccumulator(str(tmp_path / "tensorboard" / "run-1234")).Reload()
    assert [(e.step, e.value) for e in shown.Scalars("case/psnr")] == [(0, 20.5), (2, 30.0)]
    assert [e.value for e in shown.Scalars("mean/psnr")] == [25.25]
    assert [(e.step, e.value) for e in shown.Scalars("losses/cut/a")] == [(0, 0.75), (2, 0.5)]
    (table,) = shown.Tensors("summary/text_summary")
    assert "| psnr ↑ (dB) | 25.25 |".encode() in table.tensor_proto.string_val[0]
    assert "mean/ssim" not in shown.Tags()["scalars"]
    assert shown.Tags()["images"] == ["a/edited", "b/edited", "c/edited"]
    assert shown.Images("a/edited")[0].width == 8
    (config,) = shown.Tensors("config/text_summary")
    assert b'"steps": 7' in config.tensor_proto.string_val[0]


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TensorBoardTracker(str(tmp_path))
    tracker.start({}, "run-1234", "run")
    tracker.fail("OSError: no space left")
    shown = EventAccumulator(str(tmp_path / "tensorboard" / "run-1234")).Reload()
    (error,) = shown.Tensors("error/text_summary")
    assert error.tensor_proto.string_val[0] == b"OSError: no space left"
