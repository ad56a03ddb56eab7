"""No number is shown, continued or reused after an input changed.

The models are replaced by a toy; settings, datasets, weights' files, records and reports are real.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import save_file

from tests.runs.toy_crew import ToyCrew
from zerocon.cli import guarded
from zerocon.commands.run import asked_of, preflight
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.core.checks import ConfigError
from zerocon.core.registry import use_plugins
from zerocon.ledger import code
from zerocon.ledger.identity import InputsChangedError
from zerocon.ledger.run_directory import RunDirectory
from zerocon.runs import runner
from zerocon.shapes.benchmark import write_benchmark


class World:
    """A dataset, weights, a judge, a direction's file and a run of them, all in one folder."""

    def __init__(self, folder: Path, pie: Path) -> None:
        self.folder, self.pie = folder, folder / "pie"
        shutil.copytree(pie, self.pie)
        for name in ("generator", "judge"):
            (folder / name / "unet").mkdir(parents=True)
            save_file({"w": torch.zeros(8)}, folder / name / "unet" / "model.safetensors")
            (folder / name / "config.json").write_text('{"side": 64}')
        save_file({"delta": torch.zeros(77, 96)}, folder / "delta.safetensors")
        self.mapping = json.loads((self.pie / "mapping_file.json").read_text())
        self.ids = list(self.mapping)[:4]

    def overrides(self, *more: str) -> list[str]:
        return [
            *(f"runner.root={self.folder / 'runs'}", f"dataset.root={self.pie}"),
            *("dataset=shapes", "dataset.limit=4", "runner.batch_size=2", "backbone.device=cpu"),
            *("method=word_swap", "direction=file", "metrics.lpips=null", "metrics.truth=null"),
            *(f"direction.path={self.folder / 'delta.safetensors'}", "metrics.structure=null"),
            *(f"backbone.path={self.folder / 'generator'}",),
            *(f"metrics.clip.path={self.folder / 'judge'}",),
            *more,
        ]

    def settings(self, *more: str) -> RunSettings:
        return compose_settings(self.overrides(*more))

    def picture(self, number: int = 0) -> Path:
        return self.pie / "annotation_images" / self.mapping[self.ids[number]]["image_path"]

    def write_mapping(self, mapping: dict[str, Any]) -> None:
        (self.pie / "mapping_file.json").write_text(json.dumps(mapping))


@pytest.fixture(scope="module")
def pie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark") / "pie"
    write_benchmark(folder, 20, "test")
    return folder


@pytest.fixture(scope="module")
def template(pie: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """With a finished run in `runs`, and the first half of it in `partial`."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ZEROCON_CACHE", str(tmp_path_factory.mktemp("cache")))
    world = World(tmp_path_factory.mktemp("world"), pie)
    with patch.context() as context:
        use_toy(context)
        runner.execute(world.settings())
    shutil.copytree(world.folder / "runs", world.folder / "partial")
    (run,) = (world.folder / "partial").iterdir()
    lines = (run / "records.jsonl").read_bytes().splitlines(keepends=True)
    (run / "records.jsonl").write_bytes(b"".join(lines[:2]))
    (run / "gallery.html").unlink()
    patch.undo()
    return world


def use_toy(patch: pytest.MonkeyPatch) -> io.StringIO:
    printed = io.StringIO()
    ToyCrew.edited = []
    patch.setattr(runner, "start_crew", ToyCrew)
    patch.setattr(runner, "CONSOLE", Console(file=printed, width=300))
    return printed


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    return use_toy(monkeypatch)


@pytest.fixture
def world(tmp_path: Path, pie: Path, printed: io.StringIO) -> World:
    return World(tmp_path, pie)


def cut(directory: Path, count: int = 2) -> None:
    """Reduce to a partial run with `count` records and without reports."""
    lines = (directory / "records.jsonl").read_bytes().splitlines(keepends=True)
    (directory / "records.jsonl").write_bytes(b"".join(lines[:count]))
    (directory / "gallery.html").unlink()


def flip(file: Path, at: int = -1, bit: int = 0) -> None:
    data = bytearray(file.read_bytes())
    data[at % len(data)] ^= 1 << bit
    file.write_bytes(data)


# What can change: (the files it is in, how it changes at a place chosen by two numbers)


def change_text(world: World, a: int, b: int, field: str) -> None:
    mapping = json.loads((world.pie / "mapping_file.json").read_text())
    entry = mapping[world.ids[a % 4]]
    words = entry[field].split()
    words[b % len(words)] += "x"
    entry[field] = " ".join(words)
    world.write_mapping(mapping)


def change_mask(world: World, a: int, b: int) -> None:
    mapping = json.loads((world.pie / "mapping_file.json").read_text())
    runs = mapping[world.ids[a % 4]]["mask"]
    runs[2 * (b % (len(runs) // 2)) + 1] += 1
    world.write_mapping(mapping)


def change_config(world: World, a: int, b: int) -> None:
    for run in [*(world.folder / "runs").iterdir(), *(world.folder / "partial").iterdir()]:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("seed: 0", f"seed: {1 + a}"))


CHANGES: dict[str, Callable[[World, int, int], None]] = {
    "picture": lambda w, a, b: flip(w.picture(a % 4), b, a % 8),
    "truth": lambda w, a, b: flip(
        w.pie / "ground_truth" / w.mapping[w.ids[a % 4]]["image_path"], b
    ),
    "source prompt": lambda w, a, b: change_text(w, a, b, "original_prompt"),
    "target prompt": lambda w, a, b: change_text(w, a, b, "editing_prompt"),
    "mask": change_mask,
    "direction": lambda w, a, b: flip(w.folder / "delta.safetensors", -1 - b % 4096, a % 8),
    "weights": lambda w, a, b: flip(
        w.folder / "generator" / "unet" / "model.safetensors", b, a % 8
    ),
    "model's config": lambda w, a, b: flip(w.folder / "generator" / "config.json", b, a % 8),
    "judge": lambda w, a, b: flip(w.folder / "judge" / "unet" / "model.safetensors", b, a % 8),
    "setting": change_config,
}


def changeable(world: World) -> list[Path]:
    files = [world.folder / "delta.safetensors"]
    for part in ("pie", "generator", "judge"):
        files += [file for file in (world.folder / part).rglob("*") if file.is_file()]
    for part in ("runs", "partial"):
        files += [next((world.folder / part).iterdir()) / "config.yaml"]
    return files


@pytest.mark.slow
@hypothesis_settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    what=st.sampled_from(list(CHANGES)),
    a=st.integers(0, 1000),
    b=st.integers(0, 100_000),
    finished=st.booleans(),
)
def test_a_changed_input_stops_showing_and_continuing(
    template: World, monkeypatch: pytest.MonkeyPatch, what: str, a: int, b: int, finished: bool
) -> None:
    printed = use_toy(monkeypatch)
    root = template.folder / ("runs" if finished else "partial")
    settings = template.settings(f"runner.root={root}")
    kept = {file: file.read_bytes() for file in changeable(template)}
    records = settings.directory / "records.jsonl"
    before = records.read_bytes()
    try:
        CHANGES[what](template, a, b)
        assume(any(file.read_bytes() != data for file, data in kept.items()))
        with pytest.raises(ConfigError):
            runner.execute(settings)
        assert "psnr" not in printed.getvalue()
        assert not ToyCrew.edited
        assert records.read_bytes() == before
    finally:
        for file, data in kept.items():
            if file.read_bytes() != data:
                file.write_bytes(data)


def test_the_same_inputs_are_continued_and_shown(template: World, printed: io.StringIO) -> None:
    copy = template.folder / "copy"
    shutil.copytree(template.folder / "partial", copy)
    outcome = runner.execute(template.settings(f"runner.root={copy}"))
    assert (outcome.done, ToyCrew.edited) == (4, template.ids[2:])
    runner.execute(template.settings(f"runner.root={copy}"))
    assert len(ToyCrew.edited) == 2
    assert printed.getvalue().count("psnr") == 2
    assert "could not be checked" not in printed.getvalue()


# The cases that were seen


def folder_of(root: Path, seed: int) -> Path:
    from PIL import Image

    root.mkdir()
    draw = torch.Generator().manual_seed(seed)
    for name in "ab":
        pixels = torch.randint(0, 255, (64, 64, 3), generator=draw, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(root / f"{name}.png")
    return root


def of_folder(tmp_path: Path, root: Path, *more: str) -> list[str]:
    return [
        *("dataset=folder", f"dataset.root={root}", "dataset.source=a cat", "dataset.target=a dog"),
        *("dataset.world=shapes", f"runner.root={tmp_path / 'runs'}", "method=word_swap"),
        *("backbone.device=cpu", *more),
    ]


def test_another_folders_pictures_do_not_get_the_first_ones_table(
    tmp_path: Path, printed: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    cats, dogs = folder_of(tmp_path / "cats", 1), folder_of(tmp_path / "dogs", 2)
    runner.execute(compose_settings(of_folder(tmp_path, cats)))
    assert guarded(["run", *of_folder(tmp_path, dogs)], "run.py") == 2
    said = capsys.readouterr()
    assert "psnr" not in said.out
    assert "the picture of case a changed; the picture of case b changed" in said.err
    assert f"(dataset: {dogs})" in said.err
    assert "another `name`" in said.err
    with pytest.raises(InputsChangedError, match="the picture of case a changed"):
        runner.execute(compose_settings(of_folder(tmp_path, dogs)))
    # The same pictures elsewhere are the same dataset.
    shutil.copytree(cats, tmp_path / "moved")
    assert preflight(asked_of(of_folder(tmp_path, tmp_path / "moved"))) == 0
    assert "psnr" in capsys.readouterr().out


def test_a_finished_run_is_shown_without_its_dataset_and_says_so(
    tmp_path: Path, printed: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    cats = folder_of(tmp_path / "cats", 1)
    runner.execute(compose_settings(of_folder(tmp_path, cats)))
    shutil.rmtree(cats)
    assert preflight(asked_of(of_folder(tmp_path, cats))) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "psnr" in said
    assert "could not be checked whether all inputs are those of this run" in said


def test_a_case_that_was_not_chosen_may_change(world: World, printed: io.StringIO) -> None:
    runner.execute(world.settings())
    other = world.mapping[list(world.mapping)[10]]
    flip(world.pie / "annotation_images" / other["image_path"])
    assert runner.execute(world.settings()).done == 4


def test_a_case_that_goes_or_comes_is_named(tmp_path: Path, printed: io.StringIO) -> None:
    cats = folder_of(tmp_path / "cats", 1)
    settings = compose_settings(of_folder(tmp_path, cats))
    runner.execute(settings)
    (cats / "b.png").rename(cats / "c.png")
    with pytest.raises(InputsChangedError) as caught:
        runner.execute(settings)
    assert "case b is not in the dataset any more; case c is new" in str(caught.value)


def test_records_of_changed_pictures_are_not_reused(world: World, printed: io.StringIO) -> None:
    runner.execute(world.settings("name=one"))
    runner.execute(world.settings("name=two"))
    assert len(ToyCrew.edited) == 4
    assert "so its records are taken" in printed.getvalue()
    flip(world.picture(1))
    runner.execute(world.settings("name=three"))
    assert len(ToyCrew.edited) == 8


def test_a_deterministic_run_reuses_no_other_records(world: World, printed: io.StringIO) -> None:
    runner.execute(world.settings("runner.batch_size=2"))
    exact = runner.execute(world.settings("runner.deterministic=true", "runner.batch_size=2"))
    assert len(ToyCrew.edited) == 8
    # Its batches do not matter: the same run.
    again = runner.execute(world.settings("runner.deterministic=true", "runner.batch_size=4"))
    assert again.directory == exact.directory
    assert len(ToyCrew.edited) == 8


def test_the_message_names_the_file(world: World) -> None:
    settings = world.settings()
    directory = runner.execute(settings).directory
    cut(directory)
    flip(world.folder / "judge" / "config.json", 2)
    with pytest.raises(InputsChangedError) as caught:
        runner.execute(settings)
    place = world.folder / "judge"
    assert f"metrics.clip.path={place}: config.json changed" in str(caught.value)
    assert str(directory) in str(caught.value)


def test_sentence_banks_from_files_are_inputs(world: World) -> None:
    banks = world.folder / "banks"
    banks.mkdir()
    (banks / "cat.txt").write_text("a cat\n")
    overrides = ["direction=sentences", "direction.bank=file", f"direction.file={banks}"]
    others = [o for o in world.overrides() if not o.startswith("direction")]
    settings = compose_settings([*others, *overrides])
    runner.execute(settings)
    (banks / "cat.txt").write_text("a dog\n")
    with pytest.raises(InputsChangedError, match=r"cat\.txt changed"):
        runner.execute(settings)


def test_packaged_weights_are_inputs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from zerocon.ledger import named_files

    for folder in ("generator", "eval_clip", "eval_lpips"):
        (world.folder / "weights" / folder).mkdir(parents=True)
        (world.folder / "weights" / folder / "w.safetensors").write_bytes(b"weights of " * 9)
    monkeypatch.setattr(named_files, "WEIGHTS", world.folder / "weights")
    overrides = [
        o for o in world.overrides() if not o.startswith(("backbone.path", "metrics.clip"))
    ]
    settings = compose_settings(overrides)
    runner.execute(settings)
    flip(world.folder / "weights" / "eval_lpips" / "w.safetensors")  # which this run does not use
    runner.execute(settings)
    for folder in ("generator", "eval_clip"):
        flip(world.folder / "weights" / folder / "w.safetensors")
        with pytest.raises(InputsChangedError, match=rf"the packaged {folder}: w\.safetensors"):
            runner.execute(settings)
        flip(world.folder / "weights" / folder / "w.safetensors")


def test_inputs_that_change_while_they_are_used(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ToyCrew._record

    def changing(crew: ToyCrew, case_id: str) -> Any:
        if len(ToyCrew.edited) == 2:
            flip(world.picture(3))
        return record(crew, case_id)

    monkeypatch.setattr(ToyCrew, "_record", changing)
    settings = world.settings()
    with pytest.raises(InputsChangedError, match="the picture of case"):
        runner.execute(settings)
    assert not (settings.directory / "gallery.html").exists()
    flip(world.picture(3))  # back to what it was; which half was edited with what, nobody knows
    with pytest.raises(InputsChangedError, match="changed while it was made"):
        runner.execute(settings)


OWN = """
from zerocon.core.registry import register
from zerocon.methods.ddim import DDIM
from {helper} import PROMPT

@register("method")
class Mine(DDIM):
    pass
"""


@pytest.mark.parametrize("part", ["class", "what it imports"])
def test_a_changed_user_method(
    world: World, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    name, helper = f"own_{world.folder.name}", f"helper_{world.folder.name}"
    files = {"class": world.folder / f"{name}.py", "what it imports": world.folder / f"{helper}.py"}
    files["class"].write_text(OWN.format(helper=helper))
    files["what it imports"].write_text("PROMPT = 'target'\n")
    monkeypatch.syspath_prepend(str(world.folder))
    monkeypatch.setenv("ZEROCON_PLUGINS", "")
    use_plugins([name])

    def settings(*more: str) -> RunSettings:
        return world.settings(f"method._target_={name}.Mine", *more)

    directory = runner.execute(settings()).directory
    files[part].write_text(files[part].read_text() + "# changed\n")
    with pytest.raises(InputsChangedError) as caught:
        runner.execute(settings())
    assert files[part].name in str(caught.value)
    assert "runner.on_code_change=rerun" in str(caught.value)
    runner.execute(settings("runner.on_code_change=keep"))
    assert "The code has changed" in printed.getvalue()
    assert len(ToyCrew.edited) == 4
    runner.execute(settings("runner.on_code_change=rerun"))
    assert len(ToyCrew.edited) == 8
    assert len(list(directory.parent.glob(f"{directory.name}.*"))) == 1


def test_the_packages_own_code_is_noted(
    world: World, printed: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.execute(world.settings())
    monkeypatch.setattr(code, "code_digest", lambda: "0" * 16)
    runner.execute(world.settings())
    assert "The code has changed since this run began" in printed.getvalue()
    # Nor are records of other code taken for another name.
    runner.execute(world.settings("name=other"))
    assert len(ToyCrew.edited) == 8


def test_a_run_from_before_inputs_were_recorded(world: World, printed: io.StringIO) -> None:
    settings = world.settings()
    directory = runner.execute(settings).directory
    (directory / "inputs.json").unlink()
    origin = json.loads((directory / "run.json").read_text())
    del origin["inputs"], origin["mixed"]
    (directory / "run.json").write_text(json.dumps(origin))
    runner.execute(settings)
    assert "made before a run's inputs were recorded" in printed.getvalue()
    cut(directory)
    with pytest.raises(InputsChangedError, match="can't be continued"):
        runner.execute(settings)


def test_a_finished_run_can_be_shown_from_a_folder_that_is_read_only(world: World) -> None:
    settings = world.settings()
    directory = runner.execute(settings).directory
    for place in [*directory.rglob("*"), directory]:
        place.chmod(0o555 if place.is_dir() else 0o444)
    before = {file: file.stat().st_mtime_ns for file in directory.rglob("*")}
    assert runner.execute(settings).done == 4
    assert {file: file.stat().st_mtime_ns for file in directory.rglob("*")} == before
    for place in [directory, *directory.rglob("*")]:
        place.chmod(0o755)


def test_a_finished_runs_check_loads_no_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.settings()
    runner.execute(settings)
    monkeypatch.setattr(runner, "start_crew", lambda _: pytest.fail("it loads models"))
    runner.execute(settings)


def test_files_are_hashed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of a file that has not changed is remembered."""
    from zerocon.core import hashing

    for file in world.folder.rglob("*"):
        if file.is_file():
            os.utime(file, (1, 1))
    monkeypatch.setattr(hashing, "SETTLED", 0)
    runner.execute(world.settings())
    hashed: list[Path] = []
    digest = hashing.file_digest

    def counted(path: Path) -> str:
        hashed.append(path)
        return digest(path)

    monkeypatch.setattr(hashing, "file_digest", counted)
    runner.execute(world.settings())
    assert not hashed
    flip(world.picture())
    with pytest.raises(InputsChangedError):
        runner.execute(world.settings())
    assert hashed == [world.picture()]


def test_killed_between_two_files_of_its_beginning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run begins with its origin file; then its config and inputs are there, too."""
    from zerocon.ledger import run_directory

    settings = world.settings()
    write, written = run_directory.write_atomic, []

    def dying(path: Path, data: bytes) -> None:
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, data)

    monkeypatch.setattr(run_directory, "write_atomic", dying)
    for stop in range(3):  # noqa: B007 - `dying` reads it
        written.clear()
        with pytest.raises(KeyboardInterrupt):
            runner.execute(settings)
        assert not RunDirectory(settings.directory).begun
    monkeypatch.setattr(run_directory, "write_atomic", write)
    runner.execute(settings)
    names = {file.name for file in settings.directory.iterdir()}
    assert names >= {"config.yaml", "inputs.json", "run.json"}


def test_a_config_that_is_missing_is_completed(world: World) -> None:
    settings = world.settings()
    directory = runner.execute(settings).directory
    (directory / "config.yaml").unlink()
    cut(directory)
    runner.execute(settings)
    assert RunDirectory(directory).config["method"]["steps"] == settings.config["method"]["steps"]


def test_two_shards_that_begin_with_other_inputs(world: World) -> None:
    runner.execute(world.settings("runner.shard=1/2"))
    flip(world.folder / "delta.safetensors")
    with pytest.raises(InputsChangedError, match=r"delta\.safetensors"):
        runner.execute(world.settings("runner.shard=2/2"))
    assert len(ToyCrew.edited) == 2
