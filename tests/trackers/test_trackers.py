from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.trackers.base import Curves, Guarded, NoTracker, label
from zerocon.trackers.wandb import SCRATCH, WandbTracker

CASES = [
    Record(case="a", status="ok", metrics={"psnr": 20.0, "ssim": math.nan, "mse": math.inf}),
    Record(case="b", status="failed", error="the mask is empty"),
]

# A process of its own: wandb's service and its exit hooks are part of what is tested.
PROGRAM = """
import logging, sys
from PIL import Image
from tests.trackers.test_trackers import CASES
from zerocon.trackers.base import Guarded
from zerocon.trackers.wandb import WandbTracker
logging.basicConfig()
picture = Image.new("RGB", (8, 8), "red")
tracker = Guarded(WandbTracker("zerocon", sys.argv[1], sys.argv[2], patience=2))
tracker.start({"method": {"steps": 7}}, "run-1234", "group")
for case in CASES:
    tracker.log_case(case, {"source": picture, "edited": picture, "map edited: circle": picture})
tracker.log_curves("a", {"cut": [0.75, 0.5], "xa": [float("nan"), 0.25]})
column = {"name": "psnr", "unit": "dB", "better": "higher"}
tracker.finish({"metrics": {"psnr": {"mean": 20.5}}, "columns": [column]})
assert sys.argv[1] == "online" or "wandb sync " in tracker.where(), tracker.where()
print("the run ended")
"""


def run(mode: str, root: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(root)} | more
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, mode, str(root / "out")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=True,
    )


@pytest.mark.slow
def test_offline_everything_is_in_the_directory(tmp_path: Path) -> None:
    done = run("offline", tmp_path)
    assert (done.stdout, done.stderr) == ("the run ended\n", "")
    wandb = tmp_path / "out/wandb"
    (log,) = wandb.glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    for part in (
        b"run-1234",
        b"steps",
        b"case/psnr",
        b"20.5",
        b"losses/cut/a",
        b"pictures/edited",
        b"maps/a",
        "mean/psnr ↑ (dB)".encode(),
    ):
        assert part in content
    (table,) = wandb.glob("offline-run-*/files/media/table/cases/*.json")
    told = json.loads(table.read_text())
    rows = [dict(zip(told["columns"], row, strict=True)) for row in told["data"]]
    assert [row["case"] for row in rows] == ["a", "b"]
    assert (rows[0]["psnr"], rows[1]["error"]) == (20.0, "the mask is empty")
    kept = [path.read_bytes()[:4] for path in (wandb / "artifacts/staging").iterdir()]
    assert kept.count(b"\x89PNG") >= 2


@pytest.mark.slow
def test_an_unreachable_server_harms_nothing(tmp_path: Path) -> None:
    key = "0" * 40
    done = run("online", tmp_path, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY=key)
    assert done.stdout == "the run ended\n"
    assert done.stderr.count("the run continues without it") == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_without_a_key_there_is_no_prompt(tmp_path: Path) -> None:
    done = run("online", tmp_path, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.stdout == "the run ended\n"
    assert "wandb login" in done.stderr


class Broken(NoTracker):
    calls = 0

    def log_case(self, record: Record, images: object) -> None:
        self.calls += 1
        raise OSError("no space left\nat all")


def test_the_guard_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    tracker = Guarded(broken)
    with caplog.at_level(logging.WARNING):
        tracker.start({}, "run", "group")
        for case in CASES:
            tracker.log_case(case, {"edited": Image.new("RGB", (2, 2))})
        tracker.finish({})
    assert broken.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Broken stopped; the run continues without it: no space left"
    ]


def test_the_guard_lets_an_interrupt_through() -> None:
    class Interrupted(NoTracker):
        def fail(self, error: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(Interrupted()).fail("stopped")


def test_pictures_of_killed_processes_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gone = subprocess.Popen(["true"])
    gone.wait()
    for process in (gone.pid, os.getpid()):
        (tmp_path / f"{SCRATCH}{process}-x").mkdir()
    WandbTracker()
    assert not (tmp_path / f"{SCRATCH}{gone.pid}-x").exists()
    assert (tmp_path / f"{SCRATCH}{os.getpid()}-x").exists()


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"tracker\.patience"):
        WandbTracker(patience=0)


def test_directions_stand_beside_a_columns_name() -> None:
    columns = [{"name": "lpips_bg", "unit": "1e-3", "better": "lower"}, {"name": "psnr_whole"}]
    assert [label(column) for column in columns] == ["lpips_bg ↓ (1e-3)", "psnr_whole"]


@pytest.mark.parametrize("name", ["images", "curves", "maps"])
def test_counts_of_cases_are_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"tracker\.{name}"):
        WandbTracker.check_settings({name: -1})


def test_the_guard_passes_on_what_a_tracker_has() -> None:
    class Telling(NoTracker):
        seen: Curves | None = None

        def where(self) -> str:
            return "over there"

        def log_curves(self, case: str, curves: Curves) -> None:
            self.seen = curves

    telling = Telling()
    tracker = Guarded(telling)
    tracker.log_curves("a", {"cut": [1.0, 0.5]})
    assert (tracker.where(), telling.seen) == ("over there", {"cut": [1.0, 0.5]})
    assert Guarded(NoTracker()).where() == ""
    Guarded(NoTracker()).log_curves("a", {"cut": [1.0]})
