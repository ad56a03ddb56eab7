"""Batches that don't fit are halved; everybody else's case is edited all the same."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zerocon.config.settings import compose_settings
from zerocon.core.cases import Case, CaseError
from zerocon.runs import worker as editing
from zerocon.runs.worker import Editor, Loaded

ROOM = 3  # cases that the memory holds


class Cases:
    ids = tuple("0123456789")
    name = fingerprint = "cases"

    def load(self, case_id: str) -> Case:
        if case_id == "8":
            raise CaseError("no picture")
        return Case(case_id, torch.zeros(3, 8, 8), "a", "b")


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are tried."""
    tried: list[int] = []

    def edit(settings: Any, backbone: Any, cases: list[Case], *more: Any) -> torch.Tensor:
        tried.append(len(cases))
        if len(cases) > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(case.id == "5" for case in cases):
            raise ValueError("this one is bad")
        return torch.zeros(len(cases), 3, 8, 8)

    monkeypatch.setattr(editing, "edit", edit)
    monkeypatch.setattr(editing, "score", lambda *_: {})
    return tried


def editor(root: Path, batch_size: int | str = 8) -> Editor:
    settings = compose_settings([f"runner.root={root}", f"runner.batch_size={batch_size}"])
    backbone: Any = SimpleNamespace(device=torch.device("cpu"), too_long=lambda _: False)
    return Editor(settings, Loaded(backbone, Cases(), []))


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(
    tmp_path: Path, sizes: list[int]
) -> None:
    one = editor(tmp_path)
    done = one(["0", "1", "2", "3", "4", "6", "7"])
    assert [record.case for record, _ in done] == ["0", "1", "2", "3", "4", "6", "7"]
    assert all(record.ok for record, _ in done)
    assert sizes == [7, 3, 3, 1]
    sizes.clear()
    assert all(record.ok for record, _ in one(["0", "1", "2", "3"]))
    assert sizes == [3, 1]


def test_a_case_that_does_not_fit_alone_fails(
    tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("test_editing.ROOM", 0)
    done = editor(tmp_path)(["0", "1"])
    assert [record.status for record, _ in done] == ["failed", "failed"]
    assert "out of memory" in str(done[0][0].error)


def test_bad_cases_leave_their_batch_mates(tmp_path: Path, sizes: list[int]) -> None:
    done = editor(tmp_path, 3)(["4", "5", "8", "9"])
    said = {record.case: record.error for record, _ in done}
    assert said["4"] is said["9"] is None
    assert "ValueError: this one is bad" in str(said["5"])
    assert said["8"] == "no picture"
    assert (tmp_path / editor(tmp_path).settings.directory.name / "images" / "9.png").exists()


def test_without_a_gpu_an_automatic_batch_is_a_whole_chunk(
    tmp_path: Path, sizes: list[int]
) -> None:
    done = editor(tmp_path, "auto")(["0", "1", "2", "3"])
    assert len(done) == 4
    assert sizes == [4, 2, 2]
