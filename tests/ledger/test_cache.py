"""Inversions are computed once: what is cached, when it is valid, and how it is named."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.cli import main
from zerocon.core.cases import Case
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.memory import NO_MEMORY, Entry, Memory, key_of
from zerocon.inversions.base import Trajectory
from zerocon.inversions.by_solver import RFSolverInversion
from zerocon.inversions.ddim import DDIMInversion
from zerocon.ledger import cache as module
from zerocon.ledger.cache import Cache, folders, memory_of, prune
from zerocon.runs.inverting import KIND, Inverter

STEPS = 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kind"


def cache(most: float = 1e9) -> Cache:
    return Cache(most)


def cases_of(*prompts: str) -> list[Case]:
    draw = torch.Generator().manual_seed(0)
    pictures = [torch.rand(3, 32, 32, generator=draw) for _ in prompts]
    return [Case(str(i), pictures[i], prompt, "x") for i, prompt in enumerate(prompts)]


THREE = cases_of("a red circle", "a blue square", "a green star")


def invert(
    backbone: StableDiffusionBackbone,
    cases: Sequence[Case],
    inverter: Inverter,
    target: str = "x",
    steps: int = STEPS,
    seed: int = 0,
) -> tuple[Trajectory, int]:
    """The trajectory, and the number of rows through the U-Net."""
    before = backbone.evaluations.forward
    conditions = Conditions(
        source=backbone.embed([case.source_prompt for case in cases]),
        target=backbone.embed([target] * len(cases)),
        negative=backbone.embed([""] * len(cases)),
    )
    draws = Draws(seed, [case.id for case in cases])
    clean = backbone.encode(torch.stack([case.image for case in cases]))
    made = inverter(backbone, cases, clean, conditions, steps, draws)
    return made, backbone.evaluations.forward - before


class Drawn(DDIMInversion):
    """Adds the case's noise, so that the key must include what the random numbers depend on."""

    uses_draws = True

    def __call__(self, backbone, clean, conditions, steps, draws) -> Trajectory:  # type: ignore[no-untyped-def]
        made = super().__call__(backbone, clean, conditions, steps, draws)
        noises = torch.stack([draws.normal_like(clean, "n")] * steps)
        return replace(
            made, noises=noises, negatives=Condition(noises[..., 0]), pinned=True, proximal=0.7
        )


def inverter(memory: Memory, kind: type[DDIMInversion] = DDIMInversion) -> Inverter:
    return Inverter(kind(), {"prompt": "source"}, memory)


def same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is not None and b is not None and torch.equal(a, b)


def test_a_batch_is_inverted_once(backbone: StableDiffusionBackbone) -> None:
    made, first = invert(backbone, THREE, inverter(cache()))
    again, none = invert(backbone, THREE, inverter(cache()))
    plain, _ = invert(backbone, THREE, inverter(NO_MEMORY))
    assert (first, none) == (3 * STEPS, 0)
    assert torch.equal(again.latents, made.latents)
    assert torch.equal(plain.latents, made.latents)
    assert made.path == plain.path == again.path


def test_a_trajectory_never_comes_from_another_batch(backbone: StableDiffusionBackbone) -> None:
    """A model's last bits depend on the batch, so it is part of the name."""
    kept = cache()
    invert(backbone, THREE[:1], inverter(kept))
    invert(backbone, THREE[1:], inverter(kept))
    _, rows = invert(backbone, THREE, inverter(kept))
    assert rows == 3 * STEPS
    for batch in (THREE[:1], THREE[1:], THREE):
        assert invert(backbone, batch, inverter(kept))[1] == 0


def test_everything_that_sampling_needs_is_cached(backbone: StableDiffusionBackbone) -> None:
    made, _ = invert(backbone, THREE, inverter(cache(), Drawn))
    again, rows = invert(backbone, THREE, inverter(cache(), Drawn))
    assert rows == 0
    assert same(again.latents, made.latents)
    assert same(again.noises, made.noises)
    assert again.negatives is not None
    assert made.negatives is not None
    assert same(again.negatives.tokens, made.negatives.tokens)
    assert (again.path, again.pinned, again.proximal) == (made.path, True, 0.7)


def test_a_solvers_midpoints_are_cached(backbone: StableDiffusionBackbone) -> None:
    kept = Inverter(RFSolverInversion(), {"prompt": "source"}, cache())
    made, _ = invert(backbone, THREE[:1], kept)
    again, rows = invert(backbone, THREE[:1], kept)
    assert rows == 0
    assert (again.way_back, again.middles) == ("midpoint", made.middles)
    assert len(again.middles) == STEPS


def test_a_cached_trajectorys_name_covers_its_inputs(backbone: StableDiffusionBackbone) -> None:
    one = THREE[:1]
    invert(backbone, one, inverter(cache()))
    invert(backbone, one, inverter(cache(), Drawn))

    def rows(cases: Sequence[Case] = one, kind: type[DDIMInversion] = DDIMInversion, **more: int):
        return invert(backbone, cases, inverter(cache(), kind), **more)[1]

    assert rows() == 0
    assert rows([replace(one[0], source_prompt="a circle")]) == STEPS
    assert rows([replace(one[0], image=one[0].image + 1e-3)]) == STEPS
    assert rows(steps=2) == 2
    other = Inverter(DDIMInversion("empty"), {"prompt": "empty"}, cache())
    assert invert(backbone, one, other)[1] == STEPS
    assert rows(kind=Drawn) == 0
    assert rows(kind=Drawn, seed=1) == STEPS
    assert rows([replace(one[0], id="another")], kind=Drawn) == STEPS


def test_the_name_omits_target_and_seed_if_they_have_no_effect(
    backbone: StableDiffusionBackbone,
) -> None:
    invert(backbone, THREE, inverter(cache()))
    assert invert(backbone, THREE, inverter(cache()), target="another")[1] == 0
    assert invert(backbone, THREE, inverter(cache()), seed=7)[1] == 0


@pytest.mark.parametrize("spoil", ["bit", "half", "text", "header", "missing"])
def test_a_damaged_entry_is_computed_again_in_the_same_batch(
    backbone: StableDiffusionBackbone, folder: Path, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = invert(backbone, THREE, inverter(cache()))
    (victim,) = (folder.parent / KIND).iterdir()
    data = bytearray(victim.read_bytes())
    data[-5 if spoil == "bit" else 20] ^= 1
    spoilt = {"half": bytes(data[: len(data) // 2]), "text": b"not a tensor"}.get(spoil, data)
    victim.write_bytes(spoilt)
    if spoil == "missing":  # killed before the entry was there
        victim.unlink()
    kept = cache()
    with caplog.at_level(logging.WARNING):
        again, rows = invert(backbone, THREE, inverter(kept))
    assert rows == 3 * STEPS
    damaged = 0 if spoil == "missing" else 3
    assert (kept.counts(KIND).found, kept.counts(KIND).damaged) == (0, damaged)
    assert (victim.name in caplog.text) == bool(damaged)
    assert torch.equal(again.latents, made.latents)
    assert invert(backbone, THREE, inverter(cache()))[1] == 0


def test_an_entry_copied_over_another_is_not_used(
    backbone: StableDiffusionBackbone, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for case in THREE[:2]:
        invert(backbone, [case], inverter(cache()))
    one, other = sorted((folder.parent / KIND).iterdir())
    one.write_bytes(other.read_bytes())
    plain = [invert(backbone, [case], inverter(NO_MEMORY))[0].latents for case in THREE[:2]]
    with caplog.at_level(logging.WARNING):
        found = [invert(backbone, [case], inverter(cache()))[0].latents for case in THREE[:2]]
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    assert f"{one.name} is damaged (its checksum does not fit its name" in caplog.text


def entry(size: int = 1000) -> Entry:
    return Entry({"value": torch.zeros(size, dtype=torch.uint8)}, {})


def test_least_recently_used_entries_are_removed_first(folder: Path) -> None:
    kept = cache()
    for i, name in enumerate("abc"):
        kept.write("kind", name, entry())
        os.utime(folder / f"{name}.safetensors", (i, i))
    assert kept.read("kind", "a") is not None  # used now
    each = (folder / "a.safetensors").stat().st_size
    assert prune(2 * each) == (1, each)
    assert {file.stem for file in folder.iterdir()} == {"a", "c"}


def test_the_size_limit_covers_all_kinds(folder: Path) -> None:
    (folder.parent / "directions_v1").mkdir(parents=True)
    (folder.parent / "directions_v1" / "old").write_bytes(b"x" * 5000)
    os.utime(folder.parent / "directions_v1" / "old", (1, 1))
    kept = cache(most=20_000)
    for i in range(60):
        kept.write("kind", key_of("kind", i), entry())
    assert 15_000 < sum(f.bytes for f in folders()) <= 20_000
    assert [f.name for f in folders()] == ["kind"] or folders()[0].files == 0


def test_an_unwritable_cache_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    kept = cache()
    monkeypatch.setattr(module, "write_atomic", full)
    with caplog.at_level(logging.WARNING):
        kept.write("kind", "a", entry())
        kept.write("kind", "b", entry())
    assert caplog.text.count("No space left") == 1
    assert kept.read("kind", "a") is None


def counted(calls: list[int]) -> Entry:
    calls.append(1)
    return Entry(values={"lines": ["a", "ü"]})


def test_text_entries_are_cached_too(folder: Path) -> None:
    calls: list[int] = []
    memory = cache()
    found = [memory.kept("kind", ["a picture"], lambda: counted(calls)) for _ in range(3)]
    assert len(calls) == 1
    assert [entry.values["lines"] for entry in found] == [["a", "ü"]] * 3
    memory.kept("kind", ["another"], lambda: counted(calls))
    assert len(calls) == len(list(folder.iterdir())) == 2


def test_a_size_limit_of_zero_disables_the_cache(folder: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        memory_of(0).kept("kind", [], lambda: counted(calls))
    assert len(calls) == 2
    assert not folder.exists()


def test_all_users_of_the_cache_share_the_size_limit(folder: Path) -> None:
    """A direction may not evict more inversions than the run's limit requires."""
    cache().write("kind", "inversion", entry(8000))
    cache(20_000).kept("words", [1], Entry)
    assert (folder / "inversion.safetensors").exists()
    cache(2000).kept("words", [2], Entry)
    assert not (folder / "inversion.safetensors").exists()


def test_a_read_only_folder_is_still_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    calls: list[int] = []
    memory = cache()
    memory.kept("kind", ["there"], lambda: counted(calls))
    monkeypatch.setattr(module, "write_atomic", refused)
    monkeypatch.setattr(module.os, "utime", refused)
    for content in ("there", "new", "newer"):
        found = memory.kept("kind", [content], lambda: counted(calls))
        assert found.values["lines"] == ["a", "ü"]
    assert len(calls) == 3
    assert caplog.text.count("Permission denied") == 1


def test_a_key_is_a_digest_of_its_content() -> None:
    assert key_of("x", {"a": 1, "b": [2]}) == key_of("x", {"b": [2], "a": 1})
    assert key_of("x", {"a": 1}) != key_of("x", {"a": 2})
    assert key_of("x", 1) != key_of("y", 1)


def test_compiled_networks_are_one_entry(folder: Path) -> None:
    compiled = folder.parent / "compiled"
    for name in ("ab/one.so", "cd/two.so", "three"):
        (compiled / name).parent.mkdir(parents=True, exist_ok=True)
        (compiled / name).write_bytes(b"12345")
    memory = cache()
    memory.kept("kind", "a", lambda: Entry(values={"text": "a"}))
    os.utime(compiled, (1, 1))
    assert [(found.name, found.files) for found in folders()] == [("compiled", 1), ("kind", 1)]
    assert folders()[0].bytes == 15
    assert prune(folders()[1].bytes) == (1, 15)
    assert not compiled.exists()
    assert [found.name for found in folders()] == ["kind"]


def test_the_command_lists_and_prunes(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    kept = cache()
    for name in "abc":
        kept.write("kind", name, entry(2_000_000))
    main(["cache"])
    shown = capsys.readouterr().out
    assert "kind" in shown
    assert " 3 " in shown
    assert "6.0 MB" in shown
    main(["cache", "--prune", "4.5MB"])
    assert "removed 1 file" in capsys.readouterr().out
    assert len(list(folder.iterdir())) == 2
