"""PIE-Bench++, MagicBrush and Emu Edit, in exactly the hub's columns and file names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parquet_files import PICTURE, cell, write_parquet
from PIL import Image

from zerocon.core.cases import CaseError, DatasetError
from zerocon.core.size import Size
from zerocon.datasets.emu_edit import EmuEdit
from zerocon.datasets.magicbrush import MagicBrush
from zerocon.datasets.pie_bench_pp import PieBenchPP

PIE_COLUMNS = {
    "image": PICTURE,
    "id": "VARCHAR",
    "source_prompt": "VARCHAR",
    "target_prompt": "VARCHAR",
    "edit_action": "VARCHAR",
    "aspect_mapping": "VARCHAR",
    "blended_words": "VARCHAR",
    "mask": "VARCHAR",
}
BRUSH_COLUMNS = {
    "img_id": "VARCHAR",
    "turn_index": "INTEGER",
    "source_img": PICTURE,
    "mask_img": PICTURE,
    "instruction": "VARCHAR",
    "target_img": PICTURE,
}
EMU_COLUMNS = {
    "instruction": "VARCHAR",
    "image": PICTURE,
    "task": "VARCHAR",
    "split": "VARCHAR",
    "idx": "BIGINT",
    "hash": "VARCHAR",
    "input_caption": "VARCHAR",
    "output_caption": "VARCHAR",
}


def pie_row(**changes: Any) -> dict[str, Any]:
    return {
        "image": cell(Image.new("RGB", (512, 512), (255, 0, 0)), "000000000002.jpg"),
        "id": "000000000002",
        "source_prompt": "a cat sitting on a wooden chair",
        "target_prompt": "a [red] [dog] [standing] on a [metal] chair",
        "edit_action": '{"dog": {"position": 1, "edit_type": 1, "action": "cat"}}',
        "aspect_mapping": '{"dog": ["red", "standing"]}',
        "blended_words": '["cat,dog"]',
        "mask": f"{512 * 256} {512 * 256}",
    } | changes


def pie_root(root: Path) -> Path:
    write_parquet(root / "0_random_140" / "V1-00000-of-00001.parquet", PIE_COLUMNS, [pie_row()])
    rows = [pie_row(id=f"{9_000_000 + i:012d}", mask="0 262144") for i in range(3)]
    write_parquet(root / "9_change_style_80" / "V1" / "0000.parquet", PIE_COLUMNS, rows)
    return root


def test_pie_bench_pp_is_read_whole(tmp_path: Path) -> None:
    dataset = PieBenchPP(pie_root(tmp_path), Size.square(64))
    assert list(dataset.ids) == ["000000000002", *(f"00000900000{i}" for i in range(3))]
    case = dataset.load("000000000002")
    assert (case.edit_type, case.edit_name) == ("0", "random")
    assert case.source_prompt == "a cat sitting on a wooden chair"
    assert case.target_prompt == "a red dog standing on a metal chair"
    assert case.blend_words == ("cat", "dog")
    assert torch.equal(case.image[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
    assert case.mask is not None
    assert case.mask[0, 32:].all()
    assert not case.mask[0, :32].any()
    style = dataset.load("000009000001")
    assert (style.edit_type, style.edit_name) == ("9", "change style")
    assert style.mask is not None
    assert style.mask.all()
    assert dataset.source_path("000000000002") == "0_random_140/000000000002.jpg"


def test_pie_bench_pp_may_lack_optional_columns(tmp_path: Path) -> None:
    columns = {"id": "VARCHAR", "image": "BLOB", "source_prompt": "VARCHAR",
               "target_prompt": "VARCHAR"}  # fmt: skip
    row = pie_row(image=cell(Image.new("RGB", (8, 8)))["bytes"])  # pyright: ignore[reportOptionalSubscript]
    write_parquet(tmp_path / "a.parquet", columns, [row])
    case = PieBenchPP(tmp_path, Size.square(16)).load("000000000002")
    assert (case.edit_type, case.mask, case.blend_words) == ("", None, None)


def test_several_aspects_are_noted(tmp_path: Path) -> None:
    rows = [pie_row(blended_words='["cat,dog", "chair,chair"]')]
    write_parquet(tmp_path / "0_random_140" / "V1-0.parquet", PIE_COLUMNS, rows)
    case = PieBenchPP(tmp_path, Size.square(16)).load("000000000002")
    assert case.blend_words is None
    assert "not one pair of words" in case.notes[0]


def test_hub_filters(tmp_path: Path) -> None:
    root = pie_root(tmp_path)
    assert len(PieBenchPP(root, Size.square(64), edit_types=["9"], limit=2).ids) == 2
    with pytest.raises(DatasetError, match="edit_types: 'x' is not one of 0, 1"):
        PieBenchPP(root, Size.square(64), edit_types=["x"])


def brush_root(root: Path) -> Path:
    photo = Image.new("RGB", (64, 64), (10, 20, 30))
    clear = photo.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 32, 64))
    white = photo.copy()
    white.paste("white", (32, 0, 64, 64))
    painted = white.copy()
    painted.paste("white", (0, 0, 16, 64))
    rows = [
        {"img_id": "139", "turn_index": 1, "source_img": cell(photo), "mask_img": cell(clear),
         "instruction": "put a cat on the seat", "target_img": cell(white)},
        {"img_id": "139", "turn_index": 2, "source_img": cell(white), "mask_img": cell(painted),
         "instruction": "make it rain", "target_img": cell(photo)},
    ]  # fmt: skip
    write_parquet(root / "data" / "dev-00000-of-00004-1b2c.parquet", BRUSH_COLUMNS, rows)
    write_parquet(root / "data" / "train-00000-of-00051.parquet", BRUSH_COLUMNS, rows[:1])
    return root


def test_magicbrush_without_captions_uses_the_instruction(tmp_path: Path) -> None:
    dataset = MagicBrush(brush_root(tmp_path), Size.square(64))
    assert list(dataset.ids) == ["139-1", "139-2"]
    case = dataset.load("139-1")
    assert (case.source_prompt, case.target_prompt) == ("", "put a cat on the seat")
    assert "the instruction is the target prompt" in case.notes[0]
    assert case.mask is not None
    assert case.mask[0, :, :32].all()
    assert not case.mask[0, :, 32:].any()
    assert case.ground_truth is not None
    assert case.ground_truth[:, 0, 63].tolist() == [1, 1, 1]
    second = dataset.load("139-2")
    assert second.mask is not None
    assert second.mask[0, :, :16].all()
    assert not second.mask[0, :, 16:].any()  # what is white in the source picture, too, is not it
    assert (
        "the mask has no transparency: the region is its white that is not in the source"
        in second.notes
    )
    assert list(MagicBrush(tmp_path, Size.square(64), split="train").ids) == ["139-1"]
    assert list(MagicBrush(tmp_path, Size.square(64), edit_types=[2]).ids) == ["139-2"]


def test_magicbrush_with_the_authors_captions(tmp_path: Path) -> None:
    captions = {
        "139": {"139-input.png": "a seat", "139-output1.png": "a cat on a seat",
                "139-output2.png": "a cat in the rain"}
    }  # fmt: skip
    (brush_root(tmp_path) / "global_descriptions.json").write_text(json.dumps(captions))
    dataset = MagicBrush(tmp_path, Size.square(64))
    first, second = dataset.load("139-1"), dataset.load("139-2")
    assert (first.source_prompt, first.target_prompt) == ("a seat", "a cat on a seat")
    assert (second.source_prompt, second.target_prompt) == ("a cat on a seat", "a cat in the rain")
    assert first.instruction == "put a cat on the seat"
    assert first.notes == ()


def emu_row(**changes: Any) -> dict[str, Any]:
    return {
        "instruction": "Add a cat", "image": cell(Image.new("RGB", (40, 30), "teal")),
        "task": "add", "split": "validation", "idx": 4, "hash": "ab",
        "input_caption": "a sofa", "output_caption": "a cat on a sofa",
    } | changes  # fmt: skip


def test_emu_edit(tmp_path: Path) -> None:
    rows = [emu_row(), emu_row(task="style", output_caption="a sofa")]
    write_parquet(tmp_path / "data" / "validation-00000-of-00002.parquet", EMU_COLUMNS, rows)
    dataset = EmuEdit(tmp_path, Size.square(32))
    assert list(dataset.ids) == ["add-4", "style-4"]
    case = dataset.load("add-4")
    assert (case.source_prompt, case.target_prompt) == ("a sofa", "a cat on a sofa")
    assert (case.instruction, case.edit_type) == ("Add a cat", "add")
    assert case.image.shape == (3, 32, 32)
    assert dataset.load("style-4").notes == ("the captions before and after the edit are the same",)
    assert list(EmuEdit(tmp_path, Size.square(32), edit_types=["style"]).ids) == ["style-4"]
    with pytest.raises(DatasetError, match=r"split 'test': no file .* there are data/validation"):
        EmuEdit(tmp_path, Size.square(32), split="test")


def test_many_rows_are_read_some_at_a_time(tmp_path: Path) -> None:
    rows = [emu_row(idx=i, image=cell(Image.new("RGB", (4, 4), (i, i, i)))) for i in range(40)]
    write_parquet(tmp_path / "test" / "0000.parquet", EMU_COLUMNS, rows)
    dataset = EmuEdit(tmp_path, Size.square(4), split="test")
    for i in (39, 0, 17, 16, 3):
        assert dataset.load(f"add-{i}").image.unique().tolist() == [pytest.approx(i / 255)]


def test_an_empty_cell_is_one_bad_case(tmp_path: Path) -> None:
    rows = [pie_row(image=None), pie_row(id="b")]
    write_parquet(tmp_path / "0_random_140" / "V1-0.parquet", PIE_COLUMNS, rows)
    dataset = PieBenchPP(tmp_path, Size.square(16))
    with pytest.raises(CaseError, match="image 000000000002: the cell is empty"):
        dataset.load("000000000002")
    assert dataset.load("b").id == "b"


def painted(mask: Image.Image, source: Image.Image) -> dict[str, Any]:
    return {"img_id": "7", "turn_index": 1, "source_img": cell(source), "mask_img": cell(mask),
            "instruction": "x", "target_img": None}  # fmt: skip


def test_a_black_and_white_mask_is_read_by_its_white(tmp_path: Path) -> None:
    """Wherever the source picture is white, too."""
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 16))
    rows = [painted(mask, Image.new("RGB", (64, 64), "white"))]
    write_parquet(tmp_path / "data" / "dev-0.parquet", BRUSH_COLUMNS, rows)
    case = MagicBrush(tmp_path, Size.square(64)).load("7-1")
    assert case.mask is not None
    assert case.mask[0, :16].all()
    assert not case.mask[0, 16:].any()
    assert "the mask has no transparency: its white is the region" in case.notes


def test_a_fully_opaque_alpha_channel_is_ignored(tmp_path: Path) -> None:
    source = Image.new("RGB", (64, 64), (10, 20, 30))
    mask = source.convert("RGBA")
    mask.paste((255, 255, 255, 255), (0, 0, 64, 16))
    write_parquet(tmp_path / "data" / "dev-0.parquet", BRUSH_COLUMNS, [painted(mask, source)])
    found = MagicBrush(tmp_path, Size.square(64)).load("7-1").mask
    assert found is not None
    assert found[0, :16].all()
    assert not found[0, 16:].any()
