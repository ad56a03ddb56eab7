"""The recipe: every stage trains from scratch, and continues after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline
from torch import nn
from toy_training import RECIPE, toy

from zerocon.core.checks import ConfigError
from zerocon.shapes.train.data import load_scenes, scene_pair, scenes_of
from zerocon.shapes.train.loop import Budget, learning_rate
from zerocon.shapes.train.muon import Muon, orthogonalised
from zerocon.shapes.train.stages import STAGES, train_stages
from zerocon.shapes.train.text import Pair, plain_text_model

KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from toy_training import RECIPE, toy
from zerocon.shapes.train.loop import Budget
toy(Path({folder!r}), Budget(save_every=0, log_every=1), pause=0.02)
"""


@pytest.mark.parametrize("muon", [False, True])
def test_an_interrupted_training_equals_an_uninterrupted_one(tmp_path: Path, muon: bool) -> None:
    recipe = replace(RECIPE, muon=muon)
    whole = toy(tmp_path / "whole", Budget(), recipe=recipe)
    for _ in range(60):
        pieces = toy(tmp_path / "pieces", Budget(seconds=0.01), recipe=recipe)
    for ours, theirs in zip(pieces.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_killed_training_continues_with_the_same_result(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    log = folder / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps[-1] < RECIPE.steps
    resumed = toy(folder, Budget())
    whole = toy(tmp_path / "whole", Budget())
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_it_learns(tmp_path: Path) -> None:
    toy(tmp_path / "toy", Budget(log_every=1), recipe=replace(RECIPE, steps=200))
    rows = [json.loads(line) for line in (tmp_path / "toy" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(RECIPE, step) for step in range(RECIPE.steps + 1)]
    assert rates[0] < rates[4] == max(rates)
    assert rates[-1] == pytest.approx(0.01 * RECIPE.lr)


def test_the_learning_rate_can_stay_before_it_falls() -> None:
    recipe = replace(RECIPE, settle=0.25)
    rates = [learning_rate(recipe, step) for step in range(recipe.steps + 1)]
    assert rates[5 : 30 + 1] == [recipe.lr] * 26
    assert rates[31] < recipe.lr
    assert rates[-1] == pytest.approx(0.01 * recipe.lr)


def test_muon_leaves_a_group_to_adam() -> None:
    gradient = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    weights = [nn.Parameter(torch.zeros(32, 64)) for _ in range(2)]
    for weight in weights:
        weight.grad = gradient
    groups = [{"params": weights[:1]}, {"params": weights[1:], "orthogonal": False}]
    Muon(groups, lr=0.1).step()
    assert weights[0].detach().abs().unique().numel() > 1000  # sizes of an orthogonal matrix
    torch.testing.assert_close(weights[1].detach(), -0.1 * gradient.sign(), rtol=1e-5, atol=1e-6)


def test_muon_moves_along_an_orthogonal_matrix() -> None:
    matrix = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert 0.5 < values.min() < values.max() < 1.4
    weight = nn.Parameter(torch.zeros(32, 64))
    weight.grad = matrix
    Muon([weight], lr=0.1).step()
    assert weight.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.2)


def test_scenes_come_in_pairs_that_differ_in_one_thing() -> None:
    for index in range(50):
        first, second = scene_pair("test-of-pairs", index)
        assert first != second
        if first.things != second.things:
            assert (first.background, first.style) == (second.background, second.style)
    assert scenes_of("test-of-pairs", 5)[:3] == scenes_of("test-of-pairs", 3)


def test_rendered_scenes_are_cached(tmp_path: Path) -> None:
    first = load_scenes("kept", 8, tmp_path)
    again = load_scenes("kept", 8, tmp_path)
    assert (first.pixels == again.pixels).all()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_every_stage_trains_from_nothing(tmp_path: Path) -> None:
    """All of `zerocon shapes train`, two steps a stage, and its result loads."""
    for _ in range(2):  # the second time, every stage finds itself finished
        train_stages(
            [], tmp_path / "work", tmp_path / "out", scenes=64, changes={"steps": 2, "batch": 8}
        )
    for stage in STAGES:
        assert (tmp_path / "work" / stage / "checkpoint.pt").exists(), stage
    no_t5: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
    pipes = [
        StableDiffusionPipeline.from_pretrained(str(tmp_path / "out" / "generator")),
        StableDiffusion3Pipeline.from_pretrained(str(tmp_path / "out" / "flow"), **no_t5),
    ]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        image = pipe("a big red circle", num_inference_steps=2, output_type="np").images[0]
        assert image.shape == (64, 64, 3)


def test_the_exported_text_encoder_is_the_one_that_was_trained() -> None:
    pair = Pair().eval()
    tokens = torch.tensor([[692, 530, 642, 545, 693, 693]])
    with torch.no_grad():
        trained = pair.text(input_ids=tokens).last_hidden_state
        exported = plain_text_model(pair)(tokens).last_hidden_state
    torch.testing.assert_close(exported, trained)


def test_an_unknown_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no stage 'unett'; the stages are: text, vae"):
        train_stages(["unett"], tmp_path, tmp_path)
