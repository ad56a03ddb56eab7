"""Scoring pictures made elsewhere: finding, reading and recording them."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from zerocon.cli import main
from zerocon.core.cases import CaseError
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.core.size import Size
from zerocon.datasets.pie_bench import PieBench
from zerocon.ledger.records import read_records
from zerocon.runs.outputs import Rules, edited_picture, find_outputs, last_part, recompressed

SIDE = 64
IDS = ("000000000000", "111000000000", "922000000003")
PATHS = {
    IDS[0]: "0_random_140/000000000000.jpg",
    IDS[1]: "1_change_object_80/1_artificial/1_animal/111000000000.jpg",
    IDS[2]: "9_change_style_80/922000000003.jpg",
}
# No model has to be loaded for these.
FEW = ["metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null"]


SQUARE = Size.square(SIDE)


def pixels(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def photo(seed: int, side: int = SIDE) -> Image.Image:
    return Image.fromarray(pixels(seed, side))


def smooth(seed: int) -> Image.Image:
    return photo(seed, 8).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture
def pie(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    mapping: dict[str, Any] = {}
    for seed, (case_id, path) in enumerate(PATHS.items()):
        file = root / "annotation_images" / path
        file.parent.mkdir(parents=True)
        photo(seed).save(file, format="PNG")  # exact, whatever its name says
        mapping[case_id] = {
            "image_path": path, "original_prompt": "a cat", "editing_prompt": "a [dog]",
            "editing_type_id": path[0], "mask": [0, 512 * 256],
        }  # fmt: skip
    (root / "mapping_file.json").write_text(json.dumps(mapping))
    return root


def dataset(pie: Path) -> PieBench:
    return PieBench(pie, SQUARE)


def put(file: Path, picture: Image.Image, kind: str = "PNG") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, format=kind)


def strip(*panels: Image.Image) -> Image.Image:
    side = panels[0].width
    whole = Image.new("RGB", (side * len(panels), panels[0].height))
    for place, panel in enumerate(panels):
        whole.paste(panel, (place * side, 0))
    return whole


def run(pie: Path, outputs: Path, tmp_path: Path, *more: str) -> tuple[int, list[Path]]:
    """The command's exit status, and the runs it wrote."""
    root = tmp_path / "runs"
    arguments = ["score", "--dataset", str(pie), "--outputs", str(outputs), "--side", str(SIDE)]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, f"runner.root={root}", *FEW, *more])
    assert isinstance(stop.value.code, int)
    return stop.value.code, sorted(root.iterdir()) if root.exists() else []


def records(directory: Path) -> dict[str, Record]:
    return {record.case: record for record in read_records(directory)}


def test_the_published_layout_is_a_run_for_each_method(pie: Path, tmp_path: Path) -> None:
    """output/<method>/annotation_images/<the source's path>, four panels, the edit is the last."""
    for method, offset in (("ddim+p2p", 10), ("directinversion+p2p", 20)):
        for seed, path in enumerate(PATHS.values()):
            panels = [photo(90), photo(seed), photo(91), photo(seed + offset)]
            put(tmp_path / "output" / method / "annotation_images" / path, strip(*panels))
    code, runs = run(pie, tmp_path / "output", tmp_path, "--protocol", "published")
    assert code == 0
    assert [r.name.rpartition("-")[0] for r in runs] == ["ddim+p2p", "directinversion+p2p"]
    for directory, offset in zip(runs, (10, 20), strict=True):
        assert json.loads((directory / "run.json").read_text())["protocol"] == "published"
        found = records(directory)
        assert list(found) == list(IDS)
        for seed, case_id in enumerate(IDS):
            assert found[case_id].ok
            assert found[case_id].notes == ("the last square of a 256x64 picture",)
            stored = np.asarray(Image.open(directory / str(found[case_id].image)))
            assert np.array_equal(stored, pixels(seed + offset))


def test_the_numbers_are_those_of_the_two_pictures(pie: Path, tmp_path: Path) -> None:
    """By hand: the mask is the upper half and a border thinner than a pixel of 64."""
    for seed, case_id in enumerate(IDS):
        put(tmp_path / "flat" / f"{case_id}.png", photo(seed + 5))
    _, (directory,) = run(pie, tmp_path / "flat", tmp_path)
    for seed, case_id in enumerate(IDS):
        a, b = pixels(seed).astype(float) / 255, pixels(seed + 5).astype(float) / 255
        squared = float(np.square(a - b)[SIDE // 2 :].mean())
        metrics = records(directory)[case_id].metrics
        assert metrics["mse_bg"] == pytest.approx(1e4 * squared, rel=1e-6)
        assert metrics["psnr_bg"] == pytest.approx(-10 * math.log10(squared), rel=1e-6)


def test_missing_pictures_are_failed_records(
    pie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "flat" / f"{IDS[1]}.webp", photo(1), "WEBP")
    (tmp_path / "flat" / f"{IDS[2]}.png").write_bytes(b"no picture")
    put(tmp_path / "flat" / "somebody.png", photo(1))
    code, (directory,) = run(pie, tmp_path / "flat", tmp_path)
    assert code == 1
    found = records(directory)
    assert [found[i].ok for i in IDS] == [False, True, False]
    assert "there is no edited picture of it" in str(found[IDS[0]].error)
    assert "not a picture in a known format" in str(found[IDS[2]].error)
    printed = capsys.readouterr().out
    assert "3 cases, 2 failed" in printed
    assert f"case {IDS[0]} failed" in printed


def test_a_csv_file_says_where_pictures_are(
    pie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "mine" / "a b.png", photo(7))
    put(tmp_path / "secret.png", photo(8))
    lines = [f"{IDS[0]},a b.png", f"{IDS[1]},../secret.png", f"{IDS[2]},a b.png", "nobody,a b.png"]
    lines.append(f"{IDS[2]},a b.png")
    (tmp_path / "mine" / "list.csv").write_text("case,path\n" + "\n".join(lines))
    code, (directory,) = run(pie, tmp_path / "mine" / "list.csv", tmp_path)
    found = records(directory)
    assert code == 1
    assert found[IDS[0]].ok
    assert "leads out of" in str(found[IDS[1]].error)
    assert "more than one edited picture" in str(found[IDS[2]].error)
    assert "1 pictures are of no case asked for, as 'nobody'" in capsys.readouterr().out


def test_a_csv_file_may_tell_methods_apart(pie: Path, tmp_path: Path) -> None:
    put(tmp_path / "a.png", photo(7))
    text = f"case,path,method\n{IDS[0]},a.png,one\n{IDS[0]},a.png,two\n"
    (tmp_path / "list.csv").write_text(text)
    assert [o.name for o in find_outputs(tmp_path / "list.csv", dataset(pie))] == ["one", "two"]
    (only,) = find_outputs(tmp_path / "list.csv", dataset(pie), ["two"])
    assert only.name == "two"
    with pytest.raises(ConfigError, match=r"no method 'three' .* \['one', 'two'\]"):
        find_outputs(tmp_path / "list.csv", dataset(pie), ["three"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none", None, "neither a folder with pictures nor a CSV file"),
        ("l.csv", "case,file\n", "has no column 'path'; it needs the columns `case` and `path`"),
        ("l.csv", 'case,path\n"a,b\n', "is not valid CSV after line 1"),
        ("l.csv", "case,path,path\na,b,c\n", "has 2 columns called 'path'"),
        ("folder", "", r"no picture of a case of pie_bench. For case 000000000000, .*\.jpg or "),
    ],
)
def test_unusable_inputs_have_messages(
    pie: Path, tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    if text == "":
        put(tmp_path / name / "other.png", photo(1))
    elif text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_outputs(tmp_path / name, dataset(pie))


def test_a_link_out_of_the_outputs_is_not_followed(pie: Path, tmp_path: Path) -> None:
    put(tmp_path / "secret.png", photo(1))
    put(tmp_path / "flat" / f"{IDS[1]}.png", photo(1))
    (tmp_path / "flat" / f"{IDS[0]}.png").symlink_to(tmp_path / "secret.png")
    _, (directory,) = run(pie, tmp_path / "flat", tmp_path)
    assert "leads out of" in str(records(directory)[IDS[0]].error)


def test_the_same_pictures_again_are_not_scored_again(
    pie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "flat" / f"{IDS[0]}.png", photo(5))
    for case_id in IDS[1:]:
        put(tmp_path / "flat" / f"{case_id}.png", photo(6))
    _, before = run(pie, tmp_path / "flat", tmp_path)
    monkeypatch.setattr("zerocon.runs.score.score", lambda *_: pytest.fail("scored again"))
    assert run(pie, tmp_path / "flat", tmp_path) == (0, before)
    monkeypatch.undo()
    put(tmp_path / "flat" / f"{IDS[0]}.png", photo(55))
    _, after = run(pie, tmp_path / "flat", tmp_path)
    assert len(after) == 2  # other pictures are another run


def test_a_case_is_always_scored_in_the_same_batch(
    pie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zerocon.runs import score as scoring

    for seed, case_id in enumerate(IDS):
        put(tmp_path / "flat" / f"{case_id}.png", photo(seed + 5))
    _, (directory,) = run(pie, tmp_path / "flat", tmp_path, "runner.batch_size=2")
    expected = (directory / "records.jsonl").read_bytes()
    lines = expected.splitlines(keepends=True)
    (directory / "records.jsonl").write_bytes(lines[0])
    score, batches = scoring.score, list[list[str]]()

    def noted(metrics: Any, cases: Any, edited: Any) -> Any:
        batches.append([case.id for case in cases])
        return score(metrics, cases, edited)

    monkeypatch.setattr(scoring, "score", noted)
    assert run(pie, tmp_path / "flat", tmp_path, "runner.batch_size=2")[0] == 0
    assert batches == [list(IDS[:2]), [IDS[2]]]
    assert (directory / "records.jsonl").read_bytes() == expected


def test_one_rule_for_every_shape(tmp_path: Path) -> None:
    a, b = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    row, note = last_part(strip(a, a, a, b), SQUARE, published=False)
    assert (row.getcolors(), note) == ([(64, (0, 0, 255))], "the last square of a 32x8 picture")
    column, _ = last_part(strip(b, a).rotate(90, expand=True), SQUARE, published=False)
    assert column.getcolors() == [(64, (0, 0, 255))]  # turned, the first panel is the lowest
    wide = Image.new("RGB", (12, 8), "red")
    wide.paste("blue", (4, 0, 12, 8))
    middle, note = last_part(wide, SQUARE, published=False)
    assert note == "the middle of a 12x8 picture"
    assert middle.getpixel((0, 0)) == (255, 0, 0)
    end, _ = last_part(wide, SQUARE, published=True)
    assert end.getcolors() == [(64, (0, 0, 255))]


def test_a_shape_that_is_not_square_is_cut_out_by_the_same_rule(tmp_path: Path) -> None:
    wide = Size(8, 16)
    a, b = Image.new("RGB", (16, 8), "red"), Image.new("RGB", (16, 8), "blue")
    row, note = last_part(strip(a, b), wide, published=False)
    assert note == "the last 16x8 pixels of a 32x8 picture"
    assert row.getcolors() == [(128, (0, 0, 255))]
    put(tmp_path / "a.png", Image.new("RGB", (32, 16), "red"))
    same, notes = edited_picture("a.png", tmp_path, Rules(wide, published=True))
    assert (same.size, notes) == ((16, 8), ("resized from 32x16 to 16x8 pixels",))
    put(tmp_path / "b.png", Image.new("RGB", (16, 10), "red"))
    middle, notes = edited_picture("b.png", tmp_path, Rules(wide))
    assert (middle.size, notes) == ((16, 8), ("the middle of a 16x10 picture",))


@pytest.mark.parametrize(("width", "height"), [(2048, 532), (1024, 600), (600, 512)])
def test_published_takes_the_last_512_pixels_whatever_the_height(
    tmp_path: Path, width: int, height: int
) -> None:
    picture = Image.effect_noise((width, height), 90).convert("RGB")
    put(tmp_path / "a.png", picture)
    edited, notes = edited_picture("a.png", tmp_path, Rules(Size.square(512), published=True))
    assert np.array_equal(np.asarray(edited), np.asarray(picture)[-512:, -512:])
    assert notes == (f"the last 512x512 pixels of a {width}x{height} picture, as published",)


def test_published_crops_of_small_pictures_are_partly_black(tmp_path: Path) -> None:
    put(tmp_path / "a.png", Image.new("RGB", (1024, 256), "red"))
    edited, (note,) = edited_picture("a.png", tmp_path, Rules(Size.square(512), published=True))
    colors = {color: count for count, color in edited.getcolors() or ()}
    assert colors == {(255, 0, 0): 512 * 256, (0, 0, 0): 512 * 256}
    assert note.endswith("which are partly outside it and black")
    _, notes = edited_picture("a.png", tmp_path, Rules(Size.square(512)))
    assert notes[0] == "the last square of a 1024x256 picture"


@pytest.mark.timeout(20)
def test_a_pipe_among_the_pictures_does_not_hang(pie: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    os.mkfifo(tmp_path / "flat" / f"{IDS[0]}.png")
    (outputs,) = find_outputs(tmp_path / "flat", dataset(pie))
    assert len(outputs.fingerprint()) == 16
    with pytest.raises(CaseError, match="this is a named pipe, not a picture"):
        edited_picture(outputs.files[IDS[0]][0], outputs.root, Rules(Size.square(SIDE)))


def test_another_size_is_noted(tmp_path: Path) -> None:
    put(tmp_path / "a.png", photo(3, 128))
    picture, notes = edited_picture("a.png", tmp_path, Rules(Size.square(SIDE)))
    assert notes == ("resized from 128 to 64 pixels",)
    blocks = pixels(3, 128).reshape(64, 2, 64, 2, 3).astype(float).mean((1, 3))
    # Each pixel is the mean of four; Pillow rounds once for the columns and once for the rows.
    assert np.abs(np.asarray(picture) - blocks).max() <= 1
    same, notes = edited_picture("a.png", tmp_path, Rules(Size.square(128)))
    assert notes == ()
    assert np.array_equal(np.asarray(same), pixels(3, 128))


def test_legacy_jpeg_is_what_saving_as_jpeg_does(tmp_path: Path) -> None:
    """A PNG comes out as if it had been saved with Pillow's default; a JPEG is left alone."""
    put(tmp_path / "a.png", strip(smooth(1), smooth(2)))
    put(tmp_path / "a.jpg", strip(smooth(1), smooth(2)), "JPEG")
    rules = Rules(Size.square(SIDE), legacy_jpeg=True)
    from_png, notes = edited_picture("a.png", tmp_path, rules)
    from_jpeg, other = edited_picture("a.jpg", tmp_path, rules)
    assert np.array_equal(np.asarray(from_png), np.asarray(from_jpeg))
    assert "recompressed as JPEG, as the published outputs were" in notes
    assert other == ("the last square of a 128x64 picture",)
    exact = np.asarray(edited_picture("a.png", tmp_path, Rules(Size.square(SIDE)))[0])
    assert not np.array_equal(np.asarray(from_png), exact)
    assert np.abs(np.asarray(recompressed(smooth(2))).astype(int) - exact).mean() < 8


def test_overrides_without_effect_are_refused(
    pie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "flat" / f"{IDS[0]}.png", photo(5))
    code, runs = run(pie, tmp_path / "flat", tmp_path, "method.guidance=3")
    assert (code, runs) == (2, [])
    assert "'method.guidance=3' has no effect here" in capsys.readouterr().err


def test_a_bad_picture_does_not_affect_its_batch(
    pie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zerocon.runs import score as scoring

    for seed, case_id in enumerate(IDS):
        put(tmp_path / "flat" / f"{case_id}.png", photo(seed + 5))
    score = scoring.score

    def poisoned(metrics: Any, cases: Any, edited: torch.Tensor) -> Any:
        if any(case.id == IDS[1] for case in cases):
            raise RuntimeError("this one")
        return score(metrics, cases, edited)

    monkeypatch.setattr(scoring, "score", poisoned)
    code, (directory,) = run(pie, tmp_path / "flat", tmp_path)
    assert code == 1
    assert [r.ok for r in records(directory).values()].count(True) == 2
    assert "RuntimeError: this one" in str(records(directory)[IDS[1]].error)


def test_broken_cases_and_odd_names_end_no_run(pie: Path, tmp_path: Path) -> None:
    mapping = json.loads((pie / "mapping_file.json").read_text())
    good = mapping[IDS[0]]
    mapping |= {
        "[/red] 猫": good, "../up": good, "": good, "a/b": good, "\ud83d": good,
        "bad": {**good, "image_path": "[/bold].png", "mask": [1]}, "worse": [1],
    }  # fmt: skip
    (pie / "mapping_file.json").write_text(json.dumps(mapping))
    for name in ("[/red] 猫.png", "a/b.png", f"{IDS[0]}.png", "bad.png"):
        put(tmp_path / "flat" / name, photo(5))
    code, (directory,) = run(pie, tmp_path / "flat", tmp_path)
    found = records(directory)
    assert code == 1
    assert {i for i, r in found.items() if r.ok} == {"[/red] 猫", "a/b", IDS[0]}
    assert all((directory / str(r.image)).exists() for r in found.values() if r.ok)
    assert not (directory / "up.png").exists()
    assert (directory / "gallery.html").exists()


def test_our_own_runs_pictures_can_be_scored_again(pie: Path, tmp_path: Path) -> None:
    for seed, case_id in enumerate(IDS):
        put(tmp_path / "flat" / f"{case_id}.png", photo(seed + 5))
    _, (first,) = run(pie, tmp_path / "flat", tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    _, runs = run(pie, copy, tmp_path)
    (again,) = [r for r in runs if r.name.startswith("images-")]
    assert {i: r.metrics for i, r in records(again).items()} == {
        i: r.metrics for i, r in records(first).items()
    }


def test_use_of_the_mask_is_recorded_as_given(pie: Path, tmp_path: Path) -> None:
    """Pictures do not show it; without the option it is recorded as unknown."""
    for case_id in IDS:
        put(tmp_path / "flat" / f"{case_id}.png", photo(1))
    said = {"yes": True, "no": False}
    _, (unsaid,) = run(pie, tmp_path / "flat", tmp_path)
    assert json.loads((unsaid / "run.json").read_text())["uses_mask"] is None
    for number, (word, meant) in enumerate(said.items()):
        _, runs = run(pie, tmp_path / "flat", tmp_path, "--given-mask", word)
        found = [json.loads((r / "run.json").read_text())["uses_mask"] for r in runs]
        assert len(runs) == number + 2  # what is said is part of the run's name
        assert meant in found
