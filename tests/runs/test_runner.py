"""Whole runs on the shapes world, small: records, resuming, and cases that fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.marks import every
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.core.checks import ConfigError
from zerocon.core.records import RecordError
from zerocon.ledger.records import read_records
from zerocon.reports.table import print_table
from zerocon.runs import crews, runner, worker
from zerocon.shapes.benchmark import write_benchmark

ROOT = Path(__file__).parents[2]
QUICK = ["metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null"]

# A finished run is told from its records: no model library is even imported.
AGAIN = """
import runpy, sys
sys.argv[0] = "run.py"
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert "diffusers" not in sys.modules
"""


@pytest.fixture(scope="module")
def pie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pie") / "shapes"
    write_benchmark(folder, 20, "test")
    return folder


@pytest.fixture
def settings(tmp_path: Path, pie: Path) -> RunSettings:
    return small(tmp_path, pie)


def small(root: Path, pie: Path, *more: str) -> RunSettings:
    return compose_settings(
        [
            f"runner.root={root}",
            f"dataset.root={pie}",
            "dataset.limit=3",
            "method.steps=2",
            "backbone.device=cpu",
            *QUICK,
            *more,
        ]
    )


def metrics_of(directory: Path) -> dict[str, dict[str, float]]:
    return {r.case: dict(r.metrics) for r in read_records(directory)}


def test_a_run_writes_all_its_files(settings: RunSettings) -> None:
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (3, 0)
    names = {p.name for p in outcome.directory.iterdir()}
    assert names >= {
        "config.yaml", "run.json", "records.jsonl", "images", "summary.json",
        "gallery.png", "gallery.html",
    }  # fmt: skip
    origin = json.loads((outcome.directory / "run.json").read_text())
    assert origin["protocol"] == "masked"
    assert origin["provenance"]["seed"] == 0
    assert len(origin["backbone"]["fingerprint"]) == 16
    assert len(list((outcome.directory / "images").iterdir())) == 3


def test_running_again_loads_nothing(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.execute(settings)
    monkeypatch.setattr(crews, "load", lambda _: pytest.fail("it loaded the models again"))
    assert runner.execute(settings).done == 3


def test_an_interrupted_run_continues_with_the_same_result(
    settings: RunSettings, tmp_path: Path, pie: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runner.execute(small(tmp_path / "whole", pie, "runner.batch_size=3"))
    edit, done = worker.edit, []

    def interrupted(*arguments: object) -> object:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return edit(*arguments)  # pyright: ignore[reportArgumentType]

    by_one = small(tmp_path, pie, "runner.batch_size=1")
    monkeypatch.setattr(worker, "edit", interrupted)
    monkeypatch.setattr(crews, "GRACE", 60.0)  # the machine may be busy
    with pytest.raises(KeyboardInterrupt, match="interrupted: 1 of 3 cases are recorded in"):
        runner.execute(by_one)
    monkeypatch.setattr(worker, "edit", edit)
    assert len(read_records(by_one.directory)) == 1
    again = runner.execute(by_one)
    assert again.directory.name == whole.directory.name
    ours, theirs = metrics_of(again.directory), metrics_of(whole.directory)
    assert ours.keys() == theirs.keys()
    for case, values in ours.items():
        np.testing.assert_allclose(
            list(values.values()), list(theirs[case].values()), rtol=1e-2, atol=1e-2
        )


def test_a_missing_picture_is_made_again(settings: RunSettings) -> None:
    """With its whole batch, so it is bit for bit what it was; the others are left alone."""
    directory = runner.execute(settings).directory
    pictures = sorted((directory / "images").iterdir())
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in pictures]
    pictures[0].unlink()
    runner.execute(settings)
    after = [(file.read_bytes(), file.stat().st_mtime_ns) for file in pictures]
    assert after[0][0] == before[0][0]
    assert after[1:] == before[1:]


def test_a_finished_run_is_shown_without_writing(settings: RunSettings) -> None:
    """So it can be shown from a disk that is full or read-only."""
    directory = runner.execute(settings).directory
    before = state_of(directory)
    directory.chmod(0o555)
    assert runner.execute(settings).done == 3
    assert state_of(directory) == before


def state_of(directory: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    every(
        3,
        [
            (lambda file: file.write_bytes(b"no record\n"), r"records\.jsonl, line 1: "),
            (
                lambda file: file.write_bytes(b'{"schema": 2}\n'),
                "line 1: schema is 2; this version",
            ),
            (lambda file: (file.unlink(), file.mkdir()), r"records\.jsonl"),
        ],
    ),
)
def test_damaged_records_end_the_run_with_a_message(
    settings: RunSettings, spoil: Any, says: str
) -> None:
    file = runner.execute(settings).directory / "records.jsonl"
    spoil(file)
    with pytest.raises(RecordError, match=says):
        runner.execute(settings)


def test_a_broken_case_becomes_a_failed_record(tmp_path: Path, pie: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(pie, broken)
    mapping = json.loads((broken / "mapping_file.json").read_text())
    ids = list(mapping)
    (broken / "annotation_images" / mapping[ids[0]]["image_path"]).write_bytes(b"no picture")
    mapping[ids[1]]["editing_prompt"] = "  "
    (broken / "mapping_file.json").write_text(json.dumps(mapping))
    outcome = runner.execute(small(tmp_path, broken))
    assert (outcome.done, outcome.failed) == (3, 2)
    records = {r.case: r for r in read_records(outcome.directory)}
    assert not records[ids[0]].ok
    assert "annotation_images" in str(records[ids[0]].error)
    assert "editing_prompt" in str(records[ids[1]].error)
    assert records[ids[2]].ok


def test_a_case_that_breaks_the_model_does_not_affect_its_batch(
    tmp_path: Path, pie: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(tmp_path, pie, "direction=word_swap")  # it embeds the target prompt itself
    embed = StableDiffusionBackbone.embed
    victim = worker.load(settings).dataset.load("000000000001").target_prompt

    def poisoned(self: StableDiffusionBackbone, prompts: list[str]) -> object:
        if victim in prompts:
            raise RuntimeError("this prompt breaks it")
        return embed(self, prompts)

    monkeypatch.setattr(StableDiffusionBackbone, "embed", poisoned)
    outcome = runner.execute(settings)
    assert (outcome.done, outcome.failed) == (3, 1)
    failed = [r for r in read_records(outcome.directory) if not r.ok]
    assert failed[0].case == "000000000001"
    assert "RuntimeError: this prompt breaks it" in str(failed[0].error)


def test_too_long_prompts_are_named(tmp_path: Path, pie: Path) -> None:
    long = tmp_path / "long"
    shutil.copytree(pie, long)
    mapping = json.loads((long / "mapping_file.json").read_text())
    first = next(iter(mapping))
    mapping[first]["editing_prompt"] = "a big red circle on a gray background " * 20
    (long / "mapping_file.json").write_text(json.dumps(mapping))
    outcome = runner.execute(small(tmp_path, long, "dataset.limit=1"))
    (record,) = read_records(outcome.directory)
    assert record.ok
    assert any("target prompt is longer" in note for note in record.notes)


@pytest.mark.slow
def test_another_model_is_not_mixed_into_a_run(settings: RunSettings) -> None:
    directory = runner.execute(settings).directory
    lines = (directory / "records.jsonl").read_text().splitlines(keepends=True)
    (directory / "records.jsonl").write_text("".join(lines[:1]))
    run = json.loads((directory / "run.json").read_text())
    run["backbone"]["fingerprint"] = "something else"
    (directory / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match="another backbone"):
        runner.execute(settings)


@pytest.mark.slow
def test_runs_side_by_side(tmp_path: Path, pie: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        runner.execute(small(tmp_path, pie, f"method={m}", f"name={m}")).directory
        for m in ("word_swap", "reconstruct")
    ]
    capsys.readouterr()
    print_table(runs, form="markdown")
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("word_swap", "reconstruct"))
    assert "psnr_bg" in printed


@pytest.mark.slow
def test_wandb_mirrors_the_whole_run_also_a_continued_one(tmp_path: Path, pie: Path) -> None:
    settings = small(tmp_path, pie, "tracker=wandb", "dataset.limit=2")
    outcome = runner.execute(settings)
    lines = (outcome.directory / "records.jsonl").read_text().splitlines(keepends=True)
    (outcome.directory / "records.jsonl").write_text(lines[0])
    (outcome.directory / "gallery.html").unlink()
    runner.execute(settings)
    offline = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(offline) == 2
    for run in offline:
        assert next(run.glob("*.wandb")).stat().st_size > 1000
        tables = list(run.rglob("*.table.json"))
        assert len(json.loads(tables[0].read_text())["data"]) == 2


@pytest.mark.slow
def test_the_command_edits_pictures(tmp_path: Path) -> None:
    """All of it, as a user starts it: every metric, the galleries, the exit status."""
    command = [
        sys.executable, "run.py", f"runner.root={tmp_path}", "dataset.limit=2", "method.steps=4",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "edit_success" in done.stdout
    (run,) = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    records = read_records(run)
    assert len(records) == 2
    assert records[0].metrics.keys() >= {"psnr_bg", "lpips_bg", "structure", "clip_whole"}
    with Image.open(run / "gallery.png") as sheet:
        assert sheet.width > 300
    again = subprocess.run(
        [sys.executable, "-c", AGAIN, *command[2:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "edit_success" in again.stdout


def test_a_misspelt_override_ends_the_command_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "run.py", f"runner.root={tmp_path}", "method.guidence=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean method.guidance" in done.stderr
    assert not list(tmp_path.iterdir())
