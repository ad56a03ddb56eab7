"""The same settings under two names are edited once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.marks import every
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.ledger import code
from zerocon.ledger.records import read_records
from zerocon.runs import runner
from zerocon.runs import worker as editing

QUICK = ["metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null"]


def small(root: Path, *more: str) -> RunSettings:
    shared = ["dataset.limit=2", "method=word_swap", "method.steps=2", "backbone.device=cpu"]
    return compose_settings([f"runner.root={root}", *shared, *QUICK, *more])


@pytest.fixture
def edits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many cases were edited, batch by batch."""
    sizes: list[int] = []
    edit = editing.edit

    def counted(settings: object, backbone: object, cases: list[object], *more: object) -> object:
        sizes.append(len(cases))
        return edit(settings, backbone, cases, *more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(editing, "edit", counted)
    return sizes


def test_a_run_with_another_name_reuses_the_records(tmp_path: Path, edits: list[int]) -> None:
    first = runner.execute(small(tmp_path, "name=one")).directory
    assert sum(edits) == 2
    second = runner.execute(small(tmp_path, "name=two"))
    assert sum(edits) == 2
    assert (second.done, second.failed) == (2, 0)
    assert read_records(second.directory) == read_records(first)
    origin = json.loads((second.directory / "run.json").read_text())
    assert origin["name"] == "two"
    assert origin["provenance"]["records_from"] == first.name
    assert "<h1>two:" in (second.directory / "gallery.html").read_text()


def test_other_settings_do_not_reuse_records(tmp_path: Path, edits: list[int]) -> None:
    runner.execute(small(tmp_path, "name=one"))
    runner.execute(small(tmp_path, "name=two", "method.guidance=3"))
    assert sum(edits) == 4


@pytest.mark.parametrize("what", every(3, ["code", "backbone", "judges"]))
def test_records_of_other_code_or_models_are_not_reused(
    tmp_path: Path, edits: list[int], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = runner.execute(small(tmp_path, "name=one")).directory
    origin = json.loads((first / "run.json").read_text())
    if what == "code":
        monkeypatch.setattr(code, "code_digest", lambda: "0" * 16)
    else:
        origin[what] = {"name": "another", "fingerprint": "0" * 16}
    (first / "run.json").write_text(json.dumps(origin))
    runner.execute(small(tmp_path, "name=two"))
    assert sum(edits) == 4


def test_records_of_a_run_that_lost_a_picture_are_not_reused(
    tmp_path: Path, edits: list[int]
) -> None:
    first = runner.execute(small(tmp_path, "name=one")).directory
    next((first / "images").iterdir()).unlink()
    runner.execute(small(tmp_path, "name=two"))
    assert sum(edits) == 4


@pytest.mark.slow
def test_a_run_interrupted_while_copying_records_continues(
    tmp_path: Path, edits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.execute(small(tmp_path, "name=one"))

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "take_records", cut_off)
        with pytest.raises(KeyboardInterrupt):
            runner.execute(small(tmp_path, "name=two"))
    assert runner.execute(small(tmp_path, "name=two")).done == 2
