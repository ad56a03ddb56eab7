"""Broken inputs: each has a message, none ends a run or blocks, nothing outside is read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_inputs import CASES, ENTRY, PNG, SIZE, WHOLE, pie, secrets

from zerocon.core.cases import CaseError, DatasetError
from zerocon.datasets.base import FileDataset
from zerocon.datasets.check import Report, check_cases
from zerocon.datasets.pie_bench import PieBench

pytestmark = pytest.mark.timeout(60)
LONGEST = 600  # characters of a message, but for what is as long as the input's own name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(PNG)
    (outside / "mapping_file.json").write_text(json.dumps({"good": ENTRY}))
    return tmp_path / "set"


class Watch:
    """Records every opened file; an audit hook can't be removed, only switched off."""

    def __init__(self) -> None:
        self.on = False
        self.opened: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.on and event == "open" and isinstance(arguments[0], (str, bytes)):
            self.opened.append(os.path.realpath(os.fsdecode(arguments[0])))


WATCH = Watch()


@pytest.fixture
def opened() -> Iterator[list[str]]:
    WATCH.opened, WATCH.on = [], True
    yield WATCH.opened
    WATCH.on = False


def assert_words(message: str) -> None:
    """A message is one or two printable lines."""
    assert message.count("\n") <= 1
    assert len(message) < LONGEST
    assert "Traceback" not in message
    message.encode()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_case_is_named_and_fails_alone(root: Path, opened: list[str], name: str) -> None:
    build, said = CASES[name]
    dataset = build(root)
    opened.clear()  # what the test itself wrote
    bad = next(i for i in dataset.ids if i != "good" or len(dataset.ids) == 1)
    with pytest.raises(CaseError, match=said) as caught:
        dataset.load(bad)
    assert_words(str(caught.value))
    assert isinstance(dataset, FileDataset)
    assert len(dataset.identity()) == 64  # whatever is wrong with it, it has one
    for case_id in set(dataset.ids) - {bad}:
        dataset.load(case_id)
    report = Report()
    assert len(list(check_cases(dataset, report))) == report.broken == 1
    assert not [p for p in opened if Path(p).is_relative_to(secrets(root))]
    assert "/etc/hostname" not in opened


@pytest.mark.parametrize("name", WHOLE)
def test_a_broken_dataset_is_named(root: Path, opened: list[str], name: str) -> None:
    build, said = WHOLE[name]
    with pytest.raises(DatasetError, match=said) as caught:
        build(root)
    assert_words(str(caught.value))
    outside = [p for p in opened if Path(p).is_relative_to(secrets(root))]
    assert not [p for p in outside if name not in ("a file as folder", "a table's link out")]


def test_there_are_enough_broken_inputs() -> None:
    assert len(CASES) + len(WHOLE) >= 150


def test_names_in_any_alphabet_are_fine(root: Path) -> None:
    pie(root)
    (root / "annotation_images" / "été").mkdir()
    (root / "annotation_images" / "été" / "猫 🐈.png").write_bytes(PNG)
    entry = {**ENTRY, "image_path": "été/猫 🐈.png", "editing_prompt": "un [chien] 🐕"}
    (root / "mapping_file.json").write_text(json.dumps({"猫 🐈": entry}, ensure_ascii=False))
    assert PieBench(root, SIZE).load("猫 🐈").target_prompt == "un chien 🐕"
