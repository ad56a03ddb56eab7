"""A dataset's identity covers every picture, mask and prompt of the cases chosen, and no other."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from samples import SAMPLES, change, put, written

from zerocon.core import hashing
from zerocon.core.cases import CaseError, DatasetMissingError
from zerocon.core.hashing import RememberedDigests, file_digest
from zerocon.core.size import Size
from zerocon.datasets.folder import Folder
from zerocon.datasets.identity import difference
from zerocon.datasets.pairs import Pairs
from zerocon.datasets.pie_bench import PieBench

OF_16 = Size.square(16)
PARTS = [(name, file) for name, sample in SAMPLES.items() for file in sample.parts]


@pytest.mark.parametrize(("name", "file"), PARTS)
def test_a_changed_byte_is_another_identity(tmp_path: Path, name: str, file: str) -> None:
    root, sample = written(name, tmp_path / "set"), SAMPLES[name]
    before = sample.read(root)
    digests = {case_id: before.case_digest(case_id) for case_id in before.ids}
    identity, fingerprint = before.identity(), before.fingerprint
    assert sample.read(root).identity() == identity
    assert identity.startswith(fingerprint)
    change(root / file, sample.parts[file])
    after = sample.read(root)
    assert after.identity() != identity
    assert after.fingerprint != fingerprint
    changed = [i for i in after.ids if digests.get(i) != after.case_digest(i)]
    assert changed


@pytest.mark.parametrize("name", SAMPLES)
def test_a_moved_dataset_has_the_same_identity(tmp_path: Path, name: str) -> None:
    root, sample = written(name, tmp_path / "set"), SAMPLES[name]
    before = sample.read(root).identity()
    moved = root.rename(tmp_path / "elsewhere")
    assert sample.read(moved).identity() == before


@pytest.mark.parametrize("name", SAMPLES)
def test_a_missing_file_is_one_cases_failure(tmp_path: Path, name: str) -> None:
    root, sample = written(name, tmp_path / "set"), SAMPLES[name]
    pictures = [file for file, part in sample.parts.items() if part is None]
    before = sample.read(root).identity()
    for file in pictures:
        data = (root / file).read_bytes()
        dataset = sample.read(root)
        (root / file).unlink()
        now = dataset.identity()
        assert now != before
        failed = [i for i in dataset.ids if _fails(dataset, i)]
        assert len(failed) < len(dataset.ids) or name in ("celebamask_hq", "pairs", "ti2i")
        (root / file).write_bytes(data)
        assert dataset.identity() == before


def _fails(dataset: Any, case_id: str) -> bool:
    try:
        dataset.load(case_id)
    except CaseError:
        return True
    return False


@pytest.mark.parametrize("name", SAMPLES)
def test_a_dataset_that_is_gone_says_so(tmp_path: Path, name: str) -> None:
    root, sample = written(name, tmp_path / "set"), SAMPLES[name]
    dataset = sample.read(root)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetMissingError, match="set is gone"):
        dataset.identity()
    if name != "shapes":  # it is written again
        with pytest.raises(DatasetMissingError):
            sample.read(root)


class Watch:
    """Records every opened file; an audit hook can't be removed, only switched off."""

    def __init__(self) -> None:
        self.on = False
        self.opened: set[str] = set()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and isinstance(arguments[0], (str, bytes)):
            self.opened.add(os.path.realpath(os.fsdecode(arguments[0])))


WATCH = Watch()


@pytest.fixture
def opened() -> Iterator[set[str]]:
    WATCH.opened = set()
    yield WATCH.opened
    WATCH.on = False


@pytest.mark.parametrize("name", SAMPLES)
def test_exactly_the_files_that_loading_reads_are_hashed(
    tmp_path: Path, name: str, opened: set[str]
) -> None:
    root, sample = written(name, tmp_path / "set"), SAMPLES[name]
    dataset = sample.read(root)
    for case_id in dataset.ids:
        opened.clear()
        WATCH.on = True
        dataset.load(case_id)
        WATCH.on = False
        read = {p for p in opened if Path(p).is_relative_to(root.resolve())}
        hashed: set[str] = set()

        def note(path: Path, hashed: set[str] = hashed) -> str:
            hashed.add(str(path))
            return file_digest(path)

        dataset.case_digest(case_id, note)
        assert read <= hashed


def test_only_the_chosen_cases_count(tmp_path: Path) -> None:
    root = written("pie_bench", tmp_path / "set")
    first = PieBench(root, OF_16, limit=1).identity()
    change(root / "annotation_images" / "1_x" / "b.png", None)
    text = (root / "mapping_file.json").read_text()
    (root / "mapping_file.json").write_text(text[::-1].replace("god", "xof", 1)[::-1])
    assert PieBench(root, OF_16, limit=1).identity() == first
    assert PieBench(root, OF_16, ids=["a"]).identity() == first
    assert PieBench(root, OF_16).identity() != first


def test_settings_that_change_a_case_count(tmp_path: Path) -> None:
    root = written("pie_bench", tmp_path / "set")
    readings = [
        PieBench(root, OF_16),
        PieBench(root, OF_16, noisy_border=False),
        PieBench(root, OF_16, protocol="published"),
    ]
    assert len({dataset.identity() for dataset in readings}) == 3
    folder = written("folder", tmp_path / "folder")
    prompts = [("a cat", "a dog"), ("a cat", "an owl"), ("a fox", "a dog")]
    assert len({Folder(folder, OF_16, *pair).identity() for pair in prompts}) == 3


def test_a_change_is_named(tmp_path: Path) -> None:
    root = written("pairs", tmp_path / "set")
    before = Pairs(root, OF_16).case_parts("a")
    assert set(before) == {"entry", "picture", "mask", "ground truth"}
    assert difference("a", before, Pairs(root, OF_16).case_parts("a")) == ""
    change(root / "a.png", None)
    (root / "m.png").unlink()
    now = Pairs(root, OF_16).case_parts("a")
    said = "the picture of case a changed; the mask of case a is missing"
    assert difference("a", before, now) == said
    assert difference("a", now, before) == (
        "the picture of case a changed; the mask of case a was missing and now exists"
    )
    (root / "pairs.csv").write_text("image,source,target\na.png,a cat,a fox\n")
    now = Pairs(root, OF_16).case_parts("a")
    assert "the entry of case a changed" in difference("a", before, now)
    assert "the mask of case a is no longer used" in difference("a", before, now)


@pytest.mark.timeout(20)
def test_a_picture_that_is_not_a_file_has_no_digest_and_does_not_block(tmp_path: Path) -> None:
    for name in ("pipe", "zero", "folder", "huge", "out"):
        put(tmp_path / f"{name}.png").unlink()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)
    dataset = Folder(tmp_path, OF_16, "a cat", "a dog")
    parts = {i: dataset.case_parts(i)["picture"] for i in dataset.ids}
    assert parts == {
        "folder": "unreadable", "huge": "too big", "pipe": "unreadable", "zero": "refused",
    }  # fmt: skip
    for case_id in dataset.ids:
        with pytest.raises(CaseError):
            dataset.load(case_id)


def test_the_world_of_each_dataset(tmp_path: Path) -> None:
    worlds: dict[str, str] = {}
    for name, sample in SAMPLES.items():
        root = written(name, tmp_path / name)
        worlds[name] = sample.read(root).world
    assert worlds.pop("shapes") == "shapes"
    assert set(worlds.values()) == {"photographs"}
    as_files = PieBench(tmp_path / "shapes", OF_16)  # ShapesPIE opened as what its format is
    assert as_files.world == PieBench.world_of(tmp_path / "shapes") == "shapes"
    assert PieBench.world_of(tmp_path / "pie_bench") == "photographs"
    assert Folder(tmp_path / "folder", OF_16, "a", "b", world="shapes").world == "shapes"
    assert Pairs(tmp_path / "pairs", OF_16, world="shapes").world == "shapes"


def test_700_remembered_pictures_are_checked_in_well_under_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time_ns
    monkeypatch.setattr(hashing.time, "time_ns", lambda: clock() + 3 * 10**9)
    root = tmp_path / "set"
    root.mkdir()
    data = put(tmp_path / "one.png", Image.effect_noise((512, 512), 90).convert("RGB")).read_bytes()
    for number in range(700):
        (root / f"{number}.png").write_bytes(data)
    first = Folder(root, Size.square(64), "a cat", "a dog").identity(
        RememberedDigests(tmp_path / "digests")
    )
    read: list[Path] = []
    monkeypatch.setattr(hashing, "file_digest", read.append)
    begun = time.process_time()
    again = Folder(root, Size.square(64), "a cat", "a dog").identity(
        RememberedDigests(tmp_path / "digests")
    )
    assert time.process_time() - begun < 1
    assert (again, read) == (first, [])


@pytest.mark.timeout(20)
def test_the_world_of_a_broken_dataset_is_found_without_blocking(tmp_path: Path) -> None:
    assert PieBench.world_of(tmp_path) == "photographs"
    with (tmp_path / "mapping_file.json").open("wb") as file:
        file.truncate(2**40)
    assert PieBench.world_of(tmp_path) == "photographs"
    (tmp_path / "mapping_file.json").unlink()
    os.mkfifo(tmp_path / "mapping_file.json")
    assert PieBench.world_of(tmp_path) == "photographs"
