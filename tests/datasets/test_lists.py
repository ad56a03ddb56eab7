"""TI2I, CelebAMask-HQ, lists of pairs and plain folders, in the layouts they come in."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parquet_files import write_parquet
from PIL import Image

from zerocon.core.cases import CaseError, DatasetError
from zerocon.core.size import Size
from zerocon.datasets.celebamask_hq import CelebAMaskHQ
from zerocon.datasets.check import Report, check_cases
from zerocon.datasets.folder import Folder
from zerocon.datasets.pairs import Pairs
from zerocon.datasets.pie_bench import PieBench
from zerocon.datasets.ti2i import TI2I

IMAGENET_R = """
- init_img: /ImageNetR-TI2I/panda/cartoon_30.jpg
  source_prompt: a cartoon of a panda
  target_prompts:
  - a photo of a panda
  - a sculpture of a bear
- init_img: /ImageNetR-TI2I/cat/sketch_20.jpg
  target_prompts:
  - a photo of a cat
"""


def picture(file: Path, color: str = "teal", size: tuple[int, int] = (32, 32)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(file)
    return file


def test_imagenet_r_ti2i_is_a_case_for_each_target(tmp_path: Path) -> None:
    """As unpacked: the list's folder has capitals, the one on disk has none."""
    picture(tmp_path / "panda" / "cartoon_30.jpg")
    picture(tmp_path / "cat" / "sketch_20.JPG")
    (tmp_path / "imnetr-ti2i.yaml").write_text(IMAGENET_R)
    dataset = TI2I(tmp_path, Size.square(16))
    assert list(dataset.ids) == ["000-cartoon_30-0", "000-cartoon_30-1", "001-sketch_20-0"]
    first, last = dataset.load("000-cartoon_30-1"), dataset.load("001-sketch_20-0")
    assert first.source_prompt == "a cartoon of a panda"
    assert first.target_prompt == "a sculpture of a bear"
    assert last.source_prompt == ""
    assert "there is no source prompt" in last.notes


def test_imagenet_r_ti2i_from_the_folder_above(tmp_path: Path) -> None:
    picture(tmp_path / "imagenetr-ti2i" / "panda" / "cartoon_30.jpg")
    picture(tmp_path / "imagenetr-ti2i" / "cat" / "sketch_20.jpg")
    (tmp_path / "imagenetr-ti2i" / "imnetr-ti2i.yaml").write_text(IMAGENET_R)
    dataset = TI2I(tmp_path, Size.square(16), file="imagenetr-ti2i/imnetr-ti2i.yaml", limit=1)
    assert dataset.load("000-cartoon_30-0").image.shape == (3, 16, 16)


def test_wild_ti2i_has_its_pictures_in_data(tmp_path: Path) -> None:
    picture(tmp_path / "data" / "real_karate.png")
    entries = "- init_img: /wild-ti2i/real_karate.png\n  target_prompts: [a robot]\n"
    (tmp_path / "wild-ti2i-real.yaml").write_text(entries)
    assert TI2I(tmp_path, Size.square(16)).load("000-real_karate-0").target_prompt == "a robot"


def test_ti2i_as_a_mapping_file(tmp_path: Path) -> None:
    picture(tmp_path / "annotation_images" / "ti2i" / "a.jpg")
    entry: dict[str, Any] = {
        "image_path": "ti2i/a.jpg", "original_prompt": "", "editing_prompt": "a [dog]",
        "editing_instruction": "", "blended_word": "", "mask": [],
    }  # fmt: skip
    name = "mapping_file_ti2i_benchmark.json"
    (tmp_path / name).write_text(json.dumps({"000": entry}))
    case = TI2I(tmp_path, Size.square(16)).load("000")
    assert (case.source_prompt, case.target_prompt, case.mask) == ("", "a dog", None)


def test_paths_out_of_a_ti2i_folder_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    root = tmp_path / "set"
    root.mkdir()
    entries = "- init_img: ../secret.png\n  target_prompts: [a]\n"
    (root / "imnetr-ti2i.yaml").write_text(entries)
    with pytest.raises(CaseError, match="leads out of the dataset's folder"):
        TI2I(root, Size.square(8)).load("000-secret-0")


def faces(root: Path) -> Path:
    picture(root / "CelebA-HQ-img" / "2001.jpg", size=(1024, 1024))
    for part, box in (("hair", (0, 0, 512, 100)), ("hat", (0, 100, 512, 256))):
        mask = Image.new("RGB", (512, 512))
        mask.paste("white", box)
        place = root / "CelebAMask-HQ-mask-anno" / "1" / f"02001_{part}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        mask.save(place)
    return root


def test_celebamask_hq_joins_the_parts(tmp_path: Path) -> None:
    lines = (
        "image,source,target,parts\n"
        '2001,a face,"a face, blond",hair hat eye_g\n'
        "2001.jpg,a face,a smile,\n2001,a face,glasses,eye_g\n2001,a face,x,beard\n"
    )
    (faces(tmp_path) / "prompts.csv").write_text(lines)
    dataset = CelebAMaskHQ(tmp_path, Size.square(64))
    assert list(dataset.ids) == ["2001", "2001.jpg", "2001-2", "2001-3"]
    case = dataset.load("2001")
    assert case.target_prompt == "a face, blond"
    assert case.mask is not None
    assert case.mask[0, :32].all()
    assert not case.mask[0, 32:].any()
    assert case.notes == ("face 2001 has no part eye_g",)
    assert dataset.load("2001.jpg").mask is None
    with pytest.raises(CaseError, match="face 2001 has none of the parts eye_g"):
        dataset.load("2001-2")
    with pytest.raises(CaseError, match="parts: 'beard' is none of skin, nose"):
        dataset.load("2001-3")


ROWS: list[dict[str, Any]] = [
    {"image": "in/a.png", "source": "a cat", "target": "a dog", "mask": "a_mask.png"},
    {"image": "in/b.png", "source": "a [cat]", "target": "an owl", "id": "owl", "mask": ""},
]


def pairs_root(root: Path, kind: str) -> Path:
    picture(root / "in" / "a.png", size=(64, 32))
    picture(root / "in" / "b.png")
    mask = Image.new("L", (64, 32))
    mask.paste(255, (0, 0, 32, 32))
    mask.save(root / "a_mask.png")
    if kind == "csv":
        lines = [",".join([r["image"], r["source"], r["target"], r["mask"], r.get("id", "")])
                 for r in ROWS]  # fmt: skip
        (root / "pairs.csv").write_text("\ufeffimage,source,target,mask,id\n" + "\n".join(lines))
    elif kind == "jsonl":
        (root / "pairs.jsonl").write_text("\n".join(json.dumps(r) for r in ROWS))
    else:
        columns = dict.fromkeys(("image", "source", "target", "mask", "id"), "VARCHAR")
        write_parquet(root / "pairs.parquet", columns, ROWS)
    return root


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_pairs_read_the_same_from_each_kind_of_file(tmp_path: Path, kind: str) -> None:
    dataset = Pairs(pairs_root(tmp_path, kind), Size.square(16), file=f"pairs.{kind}")
    assert list(dataset.ids) == ["in/a", "owl"]
    case = dataset.load("in/a")
    assert (case.source_prompt, case.target_prompt) == ("a cat", "a dog")
    assert case.mask is not None  # the middle square of 64 x 32, of which the left half is light
    assert case.mask[0, :, :8].all()
    assert not case.mask[0, :, 8:].any()
    assert dataset.load("owl").mask is None
    assert dataset.load("owl").source_prompt == "a [cat]"


def test_pairs_that_are_not_square_are_cropped_alike(tmp_path: Path) -> None:
    """Picture, mask and ground truth each by its own resolution; the digest is of the files."""
    photo = Image.new("RGB", (96, 64), "red")
    photo.paste("white", (0, 0, 48, 64))
    photo.save(tmp_path / "a.png")
    photo.resize((192, 128), Image.Resampling.NEAREST).save(tmp_path / "truth.png")
    photo.convert("L").resize((48, 32), Image.Resampling.NEAREST).save(tmp_path / "mask.png")
    row = {"image": "a.png", "source": "a", "target": "b", "mask": "mask.png",
           "ground_truth": "truth.png"}  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    high, wide, square = (
        Pairs(tmp_path, size, file="pairs.jsonl")
        for size in (Size(32, 16), Size(16, 32), Size(16, 16))
    )
    assert high.identity() == wide.identity() == square.identity()
    for dataset in (high, wide, square):
        case, (height, width) = dataset.load("a"), dataset.pixels
        assert case.mask is not None
        assert case.ground_truth is not None
        assert case.image.shape == case.ground_truth.shape == (3, height, width)
        assert case.mask.shape == (1, height, width)
        white = torch.zeros(height, width)
        white[:, : width // 2] = 1
        assert torch.equal(case.image[2].round(), white)
        assert torch.equal(case.ground_truth[2].round(), white)
        assert torch.equal(case.mask[0], white)


def test_a_folder_has_one_edit_for_all(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "a.jpg", "deep/c.webp", ".hidden.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    dataset = Folder(tmp_path, Size.square(8), "a cat", "a dog")
    assert list(dataset.ids) == ["a.jpg", "a.png", "b", "deep/c"]
    case = dataset.load("deep/c")
    assert (case.source_prompt, case.target_prompt) == ("a cat", "a dog")
    assert dataset.fingerprint != Folder(tmp_path, Size.square(8), "a cat", "an owl").fingerprint
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="contains no picture"):
        Folder(tmp_path / "empty", Size.square(8), "a cat", "a dog")
    with pytest.raises(DatasetError, match="target is ' '; it must be a prompt"):
        Folder(tmp_path, Size.square(8), "a cat", " ")


def mapping_of(count: int) -> dict[str, dict[str, Any]]:
    return {
        f"{i:03d}": {"image_path": "a.png", "original_prompt": "a cat", "editing_prompt": "a dog",
                     "editing_type_id": str(i % 10)}
        for i in range(count)
    }  # fmt: skip


def test_a_random_subset_is_seeded_and_keeps_the_order(tmp_path: Path) -> None:
    (tmp_path / "mapping_file.json").write_text(json.dumps(mapping_of(60)))
    first = list(PieBench(tmp_path, Size.square(8), subset=12).ids)
    again = list(PieBench(tmp_path, Size.square(8), subset=12).ids)
    other = list(PieBench(tmp_path, Size.square(8), subset=12, subset_seed=1).ids)
    assert first == again == sorted(first)
    assert first != other
    assert len(set(first)) == len(set(other)) == 12
    typed = PieBench(tmp_path, Size.square(8), subset=3, edit_types=[4], limit=2)
    assert len(typed.ids) == 2
    assert all(i.endswith("4") for i in typed.ids)
    prints = {
        PieBench(tmp_path, Size.square(8), subset=n, subset_seed=s).fingerprint
        for n, s in ((None, 0), (12, 0), (12, 1))
    }
    assert len(prints) == 3
    with pytest.raises(DatasetError, match="subset is 0; it must be at least 1"):
        PieBench(tmp_path, Size.square(8), subset=0)


def test_the_check_lists_all_that_is_wrong_with_a_case(tmp_path: Path) -> None:
    mapping = mapping_of(3)
    mapping["001"] |= {"image_path": "none.png", "editing_prompt": "", "mask": [5]}
    mapping["002"] |= {"editing_prompt": "a cat"}
    (tmp_path / "mapping_file.json").write_text(json.dumps(mapping))
    picture(tmp_path / "annotation_images" / "a.png")
    report = Report()
    (line,) = check_cases(PieBench(tmp_path, Size.square(8)), report)
    assert line.startswith("case 001: ")
    for problem in ("no such file", "editing_prompt is ''", "starts and lengths must come in"):
        assert problem in line
    assert report.summary() == (
        "3 cases, 1 of them can't be used\n  1 x the source and the target prompt are the same"
    )


def test_masks_of_another_shape_are_refused(tmp_path: Path) -> None:
    pairs_root(tmp_path, "jsonl")
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(tmp_path / "a_mask.png")
    with pytest.raises(
        CaseError, match="64x64 pixels do not have the same shape as the picture's 64x32"
    ):
        Pairs(tmp_path, Size.square(16), file="pairs.jsonl").load("in/a")


PUBLISHED_ENTRY = """
- {}
  target_prompts: [a photo of a panda]
"""


def test_the_published_entry_without_a_picture_gets_it(tmp_path: Path) -> None:
    picture(tmp_path / "panda" / "cartoon_30.jpg")
    (tmp_path / "imnetr-ti2i.yaml").write_text(
        PUBLISHED_ENTRY.format("source_prompt: a cartoon of a panda")
    )
    dataset = TI2I(tmp_path, Size.square(16))
    assert list(dataset.ids) == ["000-cartoon_30-0"]
    case = dataset.load("000-cartoon_30-0")
    assert case.source_prompt == "a cartoon of a panda"
    assert case.notes == ("the list names no picture; used /ImageNetR-TI2I/panda/cartoon_30.jpg",)
    assert dataset.case_parts("000-cartoon_30-0")["picture"] != "missing"


def test_the_entry_is_also_found_by_its_position(tmp_path: Path) -> None:
    picture(tmp_path / "panda" / "cartoon_30.jpg")
    picture(tmp_path / "cat" / "a.jpg")
    others = PUBLISHED_ENTRY.format("init_img: cat/a.jpg")
    panda = PUBLISHED_ENTRY.format("other: 1")
    (tmp_path / "imnetr-ti2i.yaml").write_text(others * 24 + panda + others * 5)
    assert TI2I(tmp_path, Size.square(16)).load("024-cartoon_30-0").id == "024-cartoon_30-0"
    (tmp_path / "imnetr-ti2i.yaml").write_text(others * 24 + panda)
    with pytest.raises(CaseError, match="init_img is None"):
        TI2I(tmp_path, Size.square(16)).load("024-None-0")


def test_a_field_of_a_csv_file_may_be_long(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    prompt = "a cat " * 30_000
    (tmp_path / "pairs.csv").write_text(f"image,source,target\na.png,{prompt},a dog\n")
    limit = csv.field_size_limit()
    assert Pairs(tmp_path, Size.square(16)).load("a").source_prompt == prompt.strip()
    assert csv.field_size_limit() == limit


def test_a_repeated_column_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    lines = "image,source,target,target\na.png,a cat,a dog,an owl\n"
    (tmp_path / "pairs.csv").write_text(lines)
    with pytest.raises(DatasetError, match="has 2 columns called 'target'; names must be unique"):
        Pairs(tmp_path, Size.square(16))
    (tmp_path / "pairs.csv").write_text("image,source,target,,\na.png,a cat,a dog,,\n")
    assert Pairs(tmp_path, Size.square(16)).load("a").target_prompt == "a dog"
