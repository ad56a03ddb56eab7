from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerocon.datasets.images import decode_rle
from zerocon.shapes.benchmark import (
    COUNTS,
    FOLDERS,
    bracketed,
    edit_mask,
    edits,
    encode_rle,
    write_benchmark,
)
from zerocon.shapes.captions import parse
from zerocon.shapes.render import render

CHECKSUM = "334d662aebcc761396d9b7adcde901cee525afbec27283ca4635d5e4e6db9d3f"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmark") / "test_20"
    write_benchmark(root, 20, "test")
    return root


def checksum(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_the_bytes_are_the_same_everywhere(folder: Path) -> None:
    assert checksum(folder) == CHECKSUM


def test_it_is_written_once_and_whole(folder: Path) -> None:
    before = (folder / "mapping_file.json").stat().st_mtime_ns
    write_benchmark(folder, 20, "test")
    assert (folder / "mapping_file.json").stat().st_mtime_ns == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="is not a complete benchmark"):
        write_benchmark(tmp_path / "mine", 20, "test")
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "notes.txt"]


@pytest.mark.parametrize("size", COUNTS)
def test_every_type_has_its_share(size: int) -> None:
    counts = [sum(e.edit_type == t for e in edits(size, "test")) for t in range(len(FOLDERS))]
    assert sum(counts) == size
    assert tuple(counts) == COUNTS[size]
    assert all(c >= 1 for c in counts)


def test_splits_share_no_scene() -> None:
    scenes = [{s for e in edits(700, split) for s in (e.source, e.target)} for split in
              ("test", "validation")]  # fmt: skip
    assert not scenes[0] & scenes[1]


def test_ids_are_unique_and_smaller_sizes_are_subsets() -> None:
    big = {e.id: e for e in edits(700, "test")}
    assert len(big) == 700
    assert all(big[e.id] == e for size in (20, 100) for e in edits(size, "test"))


@pytest.mark.parametrize("split", ["test", "validation"])
def test_prompts_say_what_the_scenes_show(split: str) -> None:
    for e in edits(700, split):
        assert parse(e.source_prompt) == e.source.described()
        assert parse(e.target_prompt) == e.target.described()
        assert e.source != e.target
        assert e.source.layout == e.target.layout
        if e.blend_words:
            assert e.blend_words[0] in e.source_prompt.split()
            assert e.blend_words[1] in e.target_prompt.split()


def test_a_mask_covers_all_that_differs_and_leaves_the_rest() -> None:
    for e in edits(20, "validation"):
        mask = edit_mask(e.source, e.target)
        differs = (render(e.source, 512) != render(e.target, 512)).any(axis=2)
        assert not (differs & ~mask).any()
        assert mask.all() == (e.edit_type == 9)


def test_files_are_in_pie_benchs_format(folder: Path) -> None:
    mapping = json.loads((folder / "mapping_file.json").read_text())
    assert list(mapping) == sorted(e.id for e in edits(20, "test"))
    entry = mapping["111000000000"]
    assert entry["image_path"] == "1_change_object_80/111000000000.png"
    assert entry["original_prompt"] == "a large pink [circle] on a brick background"
    assert entry["editing_prompt"] == "a large pink [square] on a brick background"
    assert entry["editing_instruction"] == "turn the circle into a square"
    assert (entry["editing_type_id"], entry["blended_word"]) == ("1", "circle square")
    for where in ("annotation_images", "ground_truth"):
        assert Image.open(folder / where / entry["image_path"]).size == (512, 512)


def test_run_lengths_are_decoded_exactly() -> None:
    mask = np.random.default_rng(0).random((9, 11)) > 0.4
    assert np.array_equal(decode_rle(encode_rle(mask), 9, 11), mask)
    assert encode_rle(np.zeros((3, 3), dtype=np.bool_)) == []


def test_brackets_mark_the_difference() -> None:
    assert bracketed("a red cat", "a blue cat") == "a [red] cat"
    assert bracketed("a cat and a dog", "a cat") == "a cat [and a dog]"


def test_unknown_sizes_and_splits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[20, 100, 700\], not 50"):
        edits(50, "test")
    with pytest.raises(ValueError, match="not 'train'"):
        edits(20, "train")
