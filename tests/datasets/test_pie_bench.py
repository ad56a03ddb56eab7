from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zerocon.core.cases import CaseError, DatasetError
from zerocon.core.size import Size
from zerocon.datasets.pie_bench import PieBench
from zerocon.datasets.shapes import ShapesPIE
from zerocon.shapes.benchmark import write_benchmark
from zerocon.shapes.render import render
from zerocon.shapes.scene import Scene

OF_64 = Size.square(64)

ENTRY: dict[str, Any] = {
    "image_path": "1_change_object_80/a.jpg",
    "original_prompt": "a [cat] on a sofa",
    "editing_prompt": "a [dog] on a sofa",
    "editing_instruction": "turn the cat into a dog",
    "editing_type_id": "1",
    "blended_word": "cat dog",
    "mask": [512 * 256, 512 * 256],
}


def folder(root: Path, **entries: object) -> Path:
    pictures = root / "annotation_images" / "1_change_object_80"
    pictures.mkdir(parents=True)
    Image.new("RGB", (512, 512), "teal").save(pictures / "a.jpg")
    (root / "mapping_file.json").write_text(json.dumps(entries))
    return root


def test_a_case_is_read_whole(tmp_path: Path) -> None:
    dataset = PieBench(folder(tmp_path, one=ENTRY), OF_64)
    case = dataset.load("one")
    assert (case.id, case.edit_type, case.edit_name) == ("one", "1", "change object")
    assert case.source_prompt == "a cat on a sofa"
    assert case.target_prompt == "a dog on a sofa"
    assert case.instruction == "turn the cat into a dog"
    assert case.blend_words == ("cat", "dog")
    assert case.image.shape == (3, 64, 64)
    assert case.mask is not None
    assert case.mask[0, 32:].all()
    assert not case.mask[0, :32].any()  # a border one pixel of 512 thick is below half of 8


def test_the_border_rule_can_be_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path, one={**ENTRY, "mask": []})
    sums = []
    for noisy in (True, False):
        mask = PieBench(root, pixels=Size.square(512), noisy_border=noisy).load("one").mask
        assert mask is not None
        sums.append(int(mask.sum()))
    assert sums == [4 * 511, 0]


def test_filters_choose_cases(tmp_path: Path) -> None:
    entries = {str(i): {**ENTRY, "editing_type_id": str(i % 3)} for i in range(9)}
    root = folder(tmp_path, **entries)
    assert list(PieBench(root, OF_64, edit_types=["1", 2], limit=3).ids) == [
        "1",
        "2",
        "4",
    ]
    assert list(PieBench(root, OF_64, ids=["7", "3"]).ids) == ["3", "7"]
    prints = {PieBench(root, OF_64, limit=n).fingerprint for n in (None, 2, 3)}
    assert len(prints) == 3
    assert PieBench(root, Size.square(32)).fingerprint == PieBench(root, OF_64).fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit is 0; it must be at least 1"),
        ({"edit_types": ["10"]}, "edit_types: '10' is not one of 0, 1"),
        ({"edit_types": ["9"]}, "the filters leave no case of"),
        ({"ids": ["two"]}, "has no case 'two'"),
    ],
)
def test_impossible_filters_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        PieBench(folder(tmp_path, one=ENTRY), OF_64, **options)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("original_prompt", "", "original_prompt is ''; it must be a text that is not empty"),
        ("editing_prompt", None, "editing_prompt is None"),
        ("editing_prompt", "[ ]", "editing_prompt is .*it is empty without brackets"),
        ("editing_type_id", "12", "editing_type_id is '12'; it must be one of 0, 1"),
        ("image_path", "../../../etc/passwd", "leads out of the dataset's folder"),
        ("image_path", "/etc/passwd", "must be relative"),
        ("image_path", "b.jpg", "there is no such file"),
        ("image_path", 7, "image_path is 7; it must be a text"),
        ("mask", [3], "mask: 1 numbers; starts and lengths must come in pairs"),
    ],
)
def test_a_bad_entry_is_one_bad_case(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    dataset = PieBench(folder(tmp_path, bad={**ENTRY, field: value}, good=ENTRY), OF_64)
    with pytest.raises(CaseError, match=message):
        dataset.load("bad")
    assert dataset.load("good").source_prompt == "a cat on a sofa"


def test_an_entry_that_is_no_object_is_one_bad_case(tmp_path: Path) -> None:
    dataset = PieBench(folder(tmp_path, bad=[1], good=ENTRY), OF_64)
    with pytest.raises(CaseError, match=r"case 'bad' is \[1\]; expected an object"):
        dataset.load("bad")


def test_missing_parts_are_no_error(tmp_path: Path) -> None:
    entry = {k: v for k, v in ENTRY.items() if k not in ("mask", "editing_instruction")}
    case = PieBench(folder(tmp_path, a={**entry, "blended_word": "one two three"}), OF_64).load("a")
    assert case.mask is None
    assert case.instruction == ""
    assert case.blend_words is None
    assert case.notes == ("blended_word has 3 words, not 2: it was not used",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must contain a non-empty object"),
        ("{}", "must contain a non-empty object"),
    ],
)
def test_a_bad_mapping_file_ends_the_run(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mapping_file.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        PieBench(tmp_path, OF_64)


def test_a_missing_mapping_file_says_what_a_folder_needs(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"No such file.*mapping_file\.json and annotation_"):
        PieBench(tmp_path / "nowhere", OF_64)


@pytest.fixture(scope="module")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes") / "test_20"
    write_benchmark(root, 20, "test")
    return root


def test_shapes_pie_has_ground_truths(shapes_root: Path) -> None:
    dataset = ShapesPIE(20, "test", OF_64, root=shapes_root)
    assert len(dataset.ids) == 20
    for case_id in dataset.ids:
        case = dataset.load(case_id)
        assert case.source_scene is not None
        assert case.target_scene is not None
        assert case.ground_truth is not None
        assert case.mask is not None
        drawn = torch.from_numpy(render(Scene.from_json(case.target_scene)).copy())
        assert (case.ground_truth - drawn.permute(2, 0, 1) / 255).abs().mean() < 0.01
        assert torch.equal(case.image * (1 - case.mask), case.ground_truth * (1 - case.mask))


def test_shapes_pie_is_written_where_the_cache_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path))
    dataset = ShapesPIE(20, "validation", OF_64, limit=2, edit_types=["8"])
    assert list(dataset.ids) == ["888000000000", "888000000001"]
    assert (tmp_path / "shapes_pie_v1" / "validation_20" / "mapping_file.json").exists()


def test_shapes_pie_refuses_other_sizes_and_splits() -> None:
    with pytest.raises(DatasetError, match=r"size is 50; ShapesPIE comes in the sizes \[20"):
        ShapesPIE(50, "test", OF_64)
    with pytest.raises(DatasetError, match="split is 'train'; it must be one of test, validation"):
        ShapesPIE(20, "train", OF_64)


@pytest.mark.parametrize("size", [Size(32, 64), Size(64, 32), OF_64])
def test_masks_lie_on_a_pictures_centre_square_whatever_the_size(
    tmp_path: Path, size: Size
) -> None:
    root = folder(tmp_path, one={**ENTRY, "mask": [512 * 256, 512 * 256]})
    photo = Image.new("RGB", (800, 512))
    photo.paste("white", (0, 256, 800, 512))  # where the mask is
    photo.paste("red", (0, 0, 144, 512))  # beside the centre square
    photo.save(root / "annotation_images" / "1_change_object_80" / "a.png")
    entry = {**ENTRY, "image_path": "1_change_object_80/a.png"}
    (root / "mapping_file.json").write_text(json.dumps({"one": entry}))
    dataset = PieBench(root, size, noisy_border=False)
    case = dataset.load("one")
    assert case.mask is not None
    assert case.image.shape == (3, *size)
    assert torch.equal(case.image.round(), case.mask.expand(3, -1, -1))
    assert dataset.fingerprint == PieBench(root, OF_64, noisy_border=False).fingerprint


def test_a_grayscale_picture_is_still_a_case(tmp_path: Path) -> None:
    root = folder(tmp_path, one=ENTRY)
    gray = Image.fromarray(np.full((100, 300), 128, dtype=np.uint8))
    gray.save(root / "annotation_images" / "1_change_object_80" / "a.jpg")
    assert PieBench(root, Size.square(32)).load("one").image.shape == (3, 32, 32)


def test_what_the_published_code_accepts_is_read_as_there_and_noted(tmp_path: Path) -> None:
    beyond = {**ENTRY, "mask": [512 * 511, 5000, 400_000, 3], "original_prompt": "[ ]"}
    root = folder(tmp_path, one=beyond)
    case = PieBench(root, OF_64, protocol="published", noisy_border=False).load("one")
    assert case.mask is not None
    assert case.source_prompt == ""
    assert case.notes == (
        "the source prompt is empty, as published",
        "2 of the mask's runs end beyond the picture: cut off, as published",
    )
    whole = (
        PieBench(root, Size.square(512), protocol="published", noisy_border=False).load("one").mask
    )
    assert whole is not None
    assert whole[0, 511].all()
    assert not whole[0, :511].any()
    with pytest.raises(CaseError, match=r"it is empty .*it ends beyond the 512x512"):
        PieBench(root, OF_64).load("one")


@pytest.mark.parametrize("value", [None, 3])
def test_a_source_prompt_left_out_is_an_error_under_any_protocol(
    tmp_path: Path, value: object
) -> None:
    root = folder(tmp_path, one={**ENTRY, "original_prompt": value})
    with pytest.raises(CaseError, match=f"original_prompt is {value}"):
        PieBench(root, OF_64, protocol="published").load("one")
