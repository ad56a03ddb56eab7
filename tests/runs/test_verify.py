"""Verifying runs: numbers from pictures, and pictures from the config."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from zerocon.cli import main
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.ledger.records import read_records
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs import runner
from zerocon.runs.reproduce import compared, differences, reproduce, spread
from zerocon.runs.verify import Tolerance, verify
from zerocon.shapes.benchmark import write_benchmark


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a run of three cases, one of which failed; its dataset)"""
    folder = tmp_path_factory.mktemp("verify")
    pie = folder / "shapes"
    write_benchmark(pie, 20, "test")
    mapping = json.loads((pie / "mapping_file.json").read_text())
    third = list(mapping)[2]
    (pie / "annotation_images" / mapping[third]["image_path"]).write_bytes(b"no picture")
    settings = compose_settings(
        [
            f"runner.root={folder}", f"dataset.root={pie}", "dataset.limit=3", "method.steps=2",
            "backbone.device=cpu", "metrics.truth=null", "metrics.clip=null",
        ]
    )  # fmt: skip
    return runner.execute(settings).directory, pie


@pytest.fixture
def run(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(made[0], tmp_path / "run")
    return tmp_path / "run"


def test_an_unchanged_run_is_verified(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.name for p in made[0].iterdir())
    main(["verify", str(made[0])])
    assert "3 records, 2 pictures, 18 numbers: all as recorded" in capsys.readouterr().out
    assert sorted(p.name for p in made[0].iterdir()) == before


def spoil_number(run: Path) -> None:
    file = run / "records.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    ok = next(r for r in records if r["status"] == "ok")
    ok["metrics"]["psnr_whole"] += 0.01
    file.write_text("".join(json.dumps(r) + "\n" for r in records))


def spoil_columns(run: Path) -> None:
    file = run / "records.jsonl"
    text = file.read_text().replace('"ssim_bg":', '"ssim_background":')
    file.write_text(text)


def spoil_picture(run: Path) -> None:
    file = min((run / "images").iterdir())
    with Image.open(file) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)


def lose_picture(run: Path) -> None:
    min((run / "images").iterdir()).unlink()


def lose_record(run: Path) -> None:
    file = run / "records.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))


def change_judge(run: Path) -> None:
    origin = json.loads((run / "run.json").read_text())
    origin["judges"]["StructureDistance"] = "another"
    (run / "run.json").write_text(json.dumps(origin))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_number, "psnr_whole was recorded as"),
        (spoil_columns, "ssim_background is not computed any more"),
        (spoil_picture, "differs from the picture recorded"),
        (lose_picture, "can't be read"),
        (lose_record, "it has no record"),
        (change_judge, "the judges recorded"),
    ],
)
def test_differences_from_the_records_are_reported(
    run: Path, spoil: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(run)
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(run)])
    assert stop.value.code == 1
    assert said in capsys.readouterr().out


def test_a_path_without_a_run_has_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(tmp_path)])
    assert stop.value.code == 2
    assert "no run's directory" in capsys.readouterr().err


def test_a_moved_dataset_can_be_given(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "moved")
    assert not verify(made[0], [f"dataset.root={tmp_path / 'moved'}"]).problems


@pytest.mark.parametrize("override", ["seed=1", "dataset.limit=1", "backbone", "method.steps=3"])
def test_a_run_is_verified_with_its_own_settings(made: tuple[Path, Path], override: str) -> None:
    with pytest.raises(ConfigError, match="can't be changed"):
        verify(made[0], [override])


@pytest.mark.parametrize(
    ("a", "b", "allowed"),
    [
        (20.0, 20.001, True),
        (20.0, 20.01, False),
        (0.0, 0.00009, True),  # a hundredth of the last of two digits
        (0.0, 0.001, False),
        (float("inf"), float("inf"), True),
        (float("inf"), 90.0, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 0.0, False),
    ],
)
def test_a_tolerance_of_size_and_digits(a: float, b: float, allowed: bool) -> None:
    assert Tolerance(1e-4, {"x": 2}).allows("x", a, b) == allowed


def test_a_run_is_reproduced(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    records = (made[0] / "records.jsonl").read_bytes()
    main(["reproduce", str(made[0]), "--cases", "2"])
    said = capsys.readouterr().out
    assert "2 at 40 dB or more" in said
    assert "psnr_whole" in said
    assert (made[0] / "records.jsonl").read_bytes() == records


def test_differences_in_reproduction_are_reported(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("guidance: 4\n", "guidance: 1\n"))
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", str(run), "--cases", "1"])
    assert stop.value.code == 1
    assert "0 at 40 dB or more" in capsys.readouterr().out


def test_a_damaged_picture_is_not_compared(run: Path) -> None:
    spoil_picture(run)
    found = reproduce(run, cases=2)
    assert len(found.problems) == len(found.cases) == 1


def test_differences_of_origins_are_named(run: Path) -> None:
    before = RunDirectory(run).origin
    change_judge(run)
    (said,) = differences(before, RunDirectory(run).origin)
    assert said.startswith("judges.StructureDistance: then ")
    assert said.endswith("now another")


def test_cases_are_spread_over_the_run(made: tuple[Path, Path]) -> None:
    records = [*read_records(made[0])] * 4
    assert spread(records, 3) == [records[0], records[4], records[8]]
    assert spread(records[:2], 5) == records[:2]


def test_two_pictures_by_hand() -> None:
    import numpy as np

    black = np.zeros((2, 2, 3), np.uint8)
    other = black.copy()
    other[0, 0, 1] = 255
    again = compared("x", black, other, {})
    assert (again.differing, again.largest) == (0.25, 255)
    assert again.psnr == pytest.approx(10 * np.log10(12))
    assert compared("x", black, black, {}).psnr == float("inf")
