from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from made_up import LPIPS, PSNR, SUCCESS, method, ok, write_run
from PIL import Image

from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.reports.comparison import compare
from zerocon.reports.evaluation import evaluation_of, evaluations
from zerocon.reports.runs import find_runs

UNKNOWN = {"name": "unknown", "fingerprint": "of its pictures"}


def with_pictures(directory: Path, size: tuple[int, int]) -> Path:
    (directory / "images").mkdir()
    Image.new("RGB", size).save(directory / "images" / "x.png")
    return directory


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(["table", *arguments])
    return " ".join(capsys.readouterr().out.split())


def test_pictures_of_another_size_are_never_in_one_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, side in (("a", 512), ("b", 128), ("c", 512)):
        with_pictures(write_run(tmp_path / name, [ok("x", psnr_bg=side)]), (side, side))
    text = printed(capsys, str(tmp_path))
    assert "1 of 2: shapes_pie_20 at 512 pixels, protocol masked" in text
    assert "2 of 2: shapes_pie_20 at 128 pixels, protocol masked" in text
    assert "2 separate tables, because the runs differ in the resolution of the pictures" in text
    with pytest.raises(ConfigError, match="they differ in the resolution of the pictures"):
        compare([tmp_path], intersection=True)


def test_recompressed_pictures_are_never_in_one_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, recompressed in (("a", False), ("b", True)):
        config = {"name": name, "scored": {"legacy_jpeg": recompressed}}
        write_run(tmp_path / name, [ok("x", psnr_bg=1.0)], config, backbone=UNKNOWN)
    assert "2 of 2: shapes_pie_20, protocol masked, recompressed as JPEG" in printed(
        capsys, str(tmp_path)
    )
    with pytest.raises(ConfigError, match="whether pictures were recompressed as JPEG"):
        compare([tmp_path])


def test_unknown_use_of_masks_is_separate_from_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For pictures made elsewhere it may be unknown whether the method had the mask."""
    for name, said in (("a", False), ("b", None)):
        write_run(tmp_path / name, [ok(c, psnr_bg=1.0) for c in "xyz"], uses_mask=said)
    text = printed(capsys, str(tmp_path))
    assert "2 of 2: shapes_pie_20, protocol masked, unknown whether given the mask" in text
    assert "unknown whether the method was given the benchmark's mask" in text
    main(["compare", str(tmp_path), "--markdown"])
    assert "- unknown whether b had the mask" in capsys.readouterr().out
    main(["table", str(tmp_path), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["given the mask"] for row in rows] == ["no", "unknown"]


def test_a_column_is_measured_in_one_way_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**LPIPS, "takes": "0..255"}
    write_run(tmp_path / "a", [ok("x", psnr_bg=1.0, lpips_bg=1.0)])
    write_run(tmp_path / "b", [ok("x", psnr_bg=1.0, lpips_bg=1.0)], columns=[PSNR, other])
    assert len(evaluations(find_runs([tmp_path]))) == 2
    assert "the runs differ in how a column of the same name is measured" in printed(
        capsys, str(tmp_path)
    )
    assert "separate tables" not in printed(capsys, str(tmp_path), "--metrics", "psnr_bg")


def test_judges_are_named_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics: dict[str, Any] = {
        "protocol": "published",
        "clip": {"_target_": "x.ClipScore", "path": "judges/clip-vit-large-patch14"},
        "lpips": {"_target_": "x.PerceptualDistance", "net": "squeeze", "path": None},
        "structure": {"_target_": "x.StructureDistance", "path": None, "revision": None},
        "pixel": {"_target_": "x.PixelDistances"},
    }
    judges = {"ClipScore": "j0", "PerceptualDistance": "j1", "StructureDistance": "j2"}
    config = method("Ddim") | {"metrics": metrics}
    run = write_run(
        tmp_path / "a", [ok("x", psnr_bg=1.0)], config, judges=judges,
        dataset={"name": "pie_bench", "fingerprint": "d"},
    )  # fmt: skip
    said = (
        "judged ClipScore by clip-vit-large-patch14 (j0), PerceptualDistance by LPIPS with "
        "squeeze (j1), StructureDistance by the shapes world's own network (j2)"
    )
    text = printed(capsys, str(run))
    assert said in text
    assert "the shapes world's judges were not trained on photographs" in text
    (run / "config.yaml").write_text("[")
    assert (
        "judged ClipScore by j0, PerceptualDistance by j1"
        in evaluation_of(find_runs([run])[0]).words()
    )


def test_what_needs_a_ground_truth_is_shown_only_where_there_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {"name": "psnr_truth", "unit": "dB", "better": "higher", "digits": 2}
    columns = [PSNR, SUCCESS, truth]
    run = write_run(tmp_path / "a", [ok("x", psnr_bg=1.0), ok("y", psnr_bg=2.0)], columns=columns)
    text = printed(capsys, str(run))
    assert "psnr_truth ↑" not in text
    assert "left out, as no case has what they need: edit_success, psnr_truth" in text
    asked = printed(capsys, str(run), "--metrics", "psnr_bg,psnr_truth")
    assert "psnr_truth ↑" in asked
    write_run(tmp_path / "b", [ok("x", psnr_bg=1.0, psnr_truth=3.0)], columns=columns)
    assert "psnr_truth ↑" in printed(capsys, str(tmp_path))


def test_tables_note_mixed_worlds(tmp_path: Path) -> None:
    said = "metrics.clip knows the shapes world only, but the dataset is of photographs"
    pure = write_run(tmp_path / "pure", [ok("a")])
    mixed = write_run(tmp_path / "mixed", [ok("a")], provenance={"mixed_worlds": said})
    runs = {run.label: run for run in find_runs([pure, mixed])}
    assert said in evaluation_of(runs["mixed"]).words()
    assert said not in evaluation_of(runs["pure"]).words()
    assert len(evaluations(list(runs.values()))) == 2  # never in one column
