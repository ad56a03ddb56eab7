"""Batches that do not fit are halved; a broken case does not affect its batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GPT2Config, GPT2LMHeadModel

from zerocon.backbones.base import BackboneError
from zerocon.config.settings import compose_settings
from zerocon.core.cases import Case, CaseError, DatasetError
from zerocon.core.checks import ConfigError
from zerocon.core.forward import Evaluations
from zerocon.core.records import Record
from zerocon.directions import captioner
from zerocon.ledger.records import read_records
from zerocon.metrics import packaged
from zerocon.runs import runner, worker
from zerocon.runs.worker import Editor, Loaded
from zerocon.shapes.benchmark import write_benchmark


class Cases:
    ids = tuple("0123456789")
    name = fingerprint = "cases"

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, case_id: str) -> Case:
        self.loaded.append(case_id)
        if case_id == "8":
            raise CaseError("no picture")
        return Case(case_id, torch.zeros(3, 8, 8), "a", "b")


class Model:
    """Replaces the models: records batches, and fails as requested."""

    def __init__(self) -> None:
        self.batches: list[str] = []
        self.room = 3  # cases that the memory holds
        self.fatal: Exception | None = None

    def edit(self, settings: Any, backbone: Any, cases: list[Case], *more: Any) -> torch.Tensor:
        self.batches.append("".join(case.id for case in cases))
        if self.fatal is not None:
            raise self.fatal
        if len(cases) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if any(case.id == "5" for case in cases):
            raise ValueError("this one is bad")
        return torch.zeros(len(cases), 3, 8, 8)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    made = Model()
    monkeypatch.setattr(worker, "edit", made.edit)
    monkeypatch.setattr(worker, "score", lambda *_: {})
    return made


@pytest.fixture(autouse=True)
def nondeterministic() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(mode=False)


def editor(root: Path, *more: str, cases: Cases | None = None) -> Editor:
    settings = compose_settings([f"runner.root={root}", "runner.batch_size=8", *more])
    backbone: Any = SimpleNamespace(
        device=torch.device("cpu"), too_long=lambda _: False, evaluations=Evaluations()
    )
    return Editor(settings, Loaded(backbone, cases or Cases(), []))


def done(one: Editor, case_ids: str, wanted: str | None = None) -> dict[str, Record]:
    batch = one.load(tuple(case_ids), frozenset(case_ids if wanted is None else wanted))
    return {record.case: record for record, _ in one.store(one.compute(batch))}


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(
    tmp_path: Path, model: Model
) -> None:
    one = editor(tmp_path)
    records = done(one, "0123467")
    assert list(records) == list("0123467")
    assert all(record.ok for record in records.values())
    assert model.batches == ["0123467", "012", "346", "7"]
    model.batches.clear()
    assert all(record.ok for record in done(one, "0123").values())
    assert model.batches == ["012", "3"]


def test_a_continued_run_has_the_same_batches(tmp_path: Path, model: Model) -> None:
    done(editor(tmp_path), "0123467")
    model.batches.clear()
    model.room = 8  # whatever the memory would hold by now
    done(editor(tmp_path), "0123467")
    assert model.batches == ["012", "346", "7"]
    model.batches.clear()
    done(editor(tmp_path, "runner.batch_size=4"), "0123")  # another setting begins anew
    assert model.batches == ["0123"]


def test_a_damaged_batch_size_is_determined_again(tmp_path: Path, model: Model) -> None:
    one = editor(tmp_path)
    done(one, "0123467")
    file = one.settings.directory / "batch_size.json"
    assert json.loads(file.read_bytes()) == {"asked": 8, "device": "cpu", "fits": 3}
    file.write_text("[")
    model.batches.clear()
    done(editor(tmp_path), "01234")
    assert model.batches == ["01234", "01", "23", "4"]


def test_a_case_that_does_not_fit_alone_fails(tmp_path: Path, model: Model) -> None:
    model.room = 0
    records = done(editor(tmp_path), "01")
    assert [record.status for record in records.values()] == ["failed", "failed"]
    assert "out of memory" in str(records["0"].error)


def test_bad_cases_do_not_affect_their_batch(tmp_path: Path, model: Model) -> None:
    one = editor(tmp_path, "runner.batch_size=3")
    records = done(one, "4589")
    assert records["4"].error is records["9"].error is None
    assert "ValueError: this one is bad" in str(records["5"].error)
    assert records["8"].error == "no picture"
    assert (one.settings.directory / "images" / "9.png").exists()


def test_what_is_recorded_already_is_computed_with_its_batch_but_not_stored(
    tmp_path: Path, model: Model
) -> None:
    one = editor(tmp_path)
    assert list(done(one, "012", wanted="1")) == ["1"]
    assert model.batches == ["012"]
    assert [file.name for file in (one.settings.directory / "images").iterdir()] == ["1.png"]


def test_a_part_without_any_wanted_case_is_left_out(tmp_path: Path, model: Model) -> None:
    done(editor(tmp_path, "runner.batch_size=3"), "0123", wanted="3")
    assert model.batches == ["3"]


def test_a_single_broken_case_is_not_computed_again(tmp_path: Path, model: Model) -> None:
    cases = Cases()
    records = done(editor(tmp_path, cases=cases), "678", wanted="8")
    assert records["8"].error == "no picture"
    assert cases.loaded == ["8"]
    assert model.batches == []


def test_without_a_gpu_an_automatic_batch_is_a_whole_chunk(tmp_path: Path, model: Model) -> None:
    records = done(editor(tmp_path, "runner.batch_size=auto"), "0123")
    assert len(records) == 4
    assert model.batches == ["0123", "01", "23"]


@pytest.mark.parametrize(
    "error",
    [
        BackboneError("the language model can't be loaded from 'nowhere'"),
        ConfigError("no case can be edited with that"),
        DatasetError("the file is gone"),
    ],
)
def test_an_error_of_every_case_ends_the_run(
    tmp_path: Path, model: Model, error: Exception
) -> None:
    model.fatal = error
    with pytest.raises(type(error), match=str(error)[:20]):
        done(editor(tmp_path), "012")
    assert model.batches == ["012"]


def models(folder: Path) -> None:
    """A captioner, a language model, a CLIP and a tokenizer of each that can't be read."""
    gpt = GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=2)
    GPT2LMHeadModel(gpt).save_pretrained(folder / "writer without tokenizer")
    GPT2LMHeadModel(gpt).save_pretrained(folder / "writer with a broken tokenizer")
    (folder / "writer with a broken tokenizer" / "tokenizer.json").write_text("{}")
    shutil.copytree(captioner.FOLDER, folder / "captioner with a broken tokenizer")
    (folder / "captioner with a broken tokenizer" / "tokenizer_config.json").write_text("[]")
    shutil.copytree(packaged.CLIP_FOLDER, folder / "judge with a broken config")
    (folder / "judge with a broken config" / "open_clip_config.json").write_text("[]")
    for kind in ("writer", "captioner", "judge"):
        (folder / f"{kind} without weights").mkdir()


WRITER = ("direction=sentences", "direction.bank=language_model", "direction.model=")
CAPTIONER = ("direction=caption", "direction.captioner_revision=null", "direction.captioner=")
JUDGE = ("metrics.clip.path=",)


@pytest.mark.parametrize(
    ("broken", "overrides"),
    [
        ("writer without weights", WRITER),
        ("writer without tokenizer", WRITER),
        ("writer with a broken tokenizer", WRITER),
        ("captioner without weights", CAPTIONER),
        ("captioner with a broken tokenizer", CAPTIONER),
        ("judge without weights", JUDGE),
        ("judge with a broken config", JUDGE),
    ],
)
def test_a_model_that_does_not_load_ends_the_run(
    tmp_path: Path, broken: str, overrides: tuple[str, ...]
) -> None:
    """A language model and a captioner are loaded with the first batch, judges before it."""
    write_benchmark(tmp_path / "pie", 20, "test")
    models(tmp_path)
    *others, path = overrides
    clip = [] if overrides == JUDGE else ["metrics.clip=null"]
    settings = compose_settings(
        [f"runner.root={tmp_path / 'runs'}", f"dataset.root={tmp_path / 'pie'}", "dataset.limit=2",
         *others, f"{path}'{tmp_path / broken}'", "backbone.device=cpu", "metrics.lpips=null",
         "metrics.structure=null", "metrics.truth=null", *clip]
    )  # fmt: skip
    with pytest.raises(ConfigError, match=f"can't be loaded from .*{broken}"):
        runner.execute(settings)
    records = settings.directory / "records.jsonl"
    assert not records.exists() or not records.read_bytes()  # no case failed of it


@pytest.mark.parametrize("size", ["3", "auto"])
def test_deterministic_runs_edit_each_case_alone(tmp_path: Path, model: Model, size: str) -> None:
    one = editor(tmp_path, "runner.deterministic=true", f"runner.batch_size={size}")
    records = done(one, "01467", wanted="0167")
    assert list(records) == list("0167")
    assert model.batches == list("0167")  # and nothing is measured
    records = done(one, "456")
    assert [records[case].status for case in "456"] == ["ok", "failed", "ok"]


def test_an_operation_without_a_deterministic_form_is_named(tmp_path: Path, model: Model) -> None:
    model.fatal = RuntimeError("x_backward does not have a deterministic implementation")
    with pytest.raises(ConfigError, match=r"runner\.deterministic=true can't be kept: x_backward"):
        done(editor(tmp_path, "runner.deterministic=true"), "012")


@pytest.mark.slow
def test_deterministic_results_do_not_depend_on_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zeroCon in the shapes world: in batches of 4, of 8, and one case without the others."""
    write_benchmark(tmp_path / "pie", 20, "test")

    def run(size: int, cases: int) -> dict[str, Record]:
        root = tmp_path / f"{size} {cases}"
        monkeypatch.setenv("ZEROCON_CACHE", str(root / "cache"))
        settings = compose_settings(
            [f"runner.root={root}", f"dataset.root={tmp_path / 'pie'}", f"dataset.limit={cases}",
             "method=zerocon", "method.steps=2", "backbone.device=cpu",
             "runner.deterministic=true", f"runner.batch_size={size}"]
        )  # fmt: skip
        return {record.case: record for record in read_records(runner.execute(settings).directory)}

    fours, eights, alone = run(4, 5), run(8, 5), run(8, 1)
    assert (len(fours), len(eights), len(alone)) == (5, 5, 1)
    assert {record.status for record in fours.values()} == {"ok"}
    for other in (eights, alone):
        for case, record in other.items():
            assert record.sha256 == fours[case].sha256
            assert record.metrics.keys() == fours[case].metrics.keys()
            numbers = [[*one.metrics.values()] for one in (record, fours[case])]
            assert np.array_equal(*numbers, equal_nan=True)


def test_an_interrupt_stops_reading_and_storing(tmp_path: Path, model: Model) -> None:
    one = editor(tmp_path)
    finished = one.compute(one.load(tuple("012"), frozenset("012")))
    stored = one.store(finished)
    next(stored)
    one.stop()
    with pytest.raises(worker.StoppedError):
        next(stored)
    with pytest.raises(worker.StoppedError):
        one.load(tuple("012"), frozenset("012"))
    assert len(list((one.settings.directory / "images").iterdir())) == 1


def test_a_picture_is_stored_as_it_was_scored(tmp_path: Path, model: Model) -> None:
    one = editor(tmp_path)
    (record,) = done(one, "1").values()
    with Image.open(one.settings.directory / str(record.image)) as picture:
        assert picture.size == (8, 8)
