"""MasaCtrl beside its update rule (tests/parity/test_rule_masactrl.py)."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest
import torch

from tests.methods.edits import given, same, watched
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.word_maps import within
from zerocon.methods import masactrl
from zerocon.methods.ddim import DDIM
from zerocon.methods.masactrl import MasaCtrl

METHOD = MasaCtrl(steps=4, guidance=3.0, first_step=1)


def test_before_its_first_step_it_is_word_swap(backbone: StableDiffusionBackbone) -> None:
    method = with_fields(METHOD, first_step=4)
    start = given(backbone, method, [0, 1])
    assert same(start.run(method), start.run(DDIM(steps=4, guidance=3.0)))


def test_the_source_can_have_an_empty_prompt(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = watched(monkeypatch, masactrl, "self", "keys")
    for told in ("source", "empty"):
        method = with_fields(METHOD, steps=1, source_prompt=told)
        start = given(backbone, method, [0])
        start.run(method)
        wanted = start.conditions.source if told == "source" else start.conditions.negative
        assert torch.equal(passes[-1].rows["source"][1].tokens, wanted.tokens)


def test_attention_within_the_mask() -> None:
    probs = torch.tensor([[0.1, 0.3, 0.6], [0.0, 0.0, 1.0], [0.2, 0.3, 0.5]])
    kept = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert same(within(probs[None, None], kept[None, None])[0, 0], expected, 1e-6)


def test_foreground_attends_only_to_foreground(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = with_fields(METHOD, steps=2, masked=True, mask_threshold=0.5)
    start = given(backbone, method, [0, 1])  # case 1 has no blend words: no mask
    maps = watched(monkeypatch, masactrl, "cross@1/4", "probs")
    start.run(method)
    monkeypatch.undo()
    passes = watched(monkeypatch, masactrl, "up.2.1.self", "probs")
    start.run(method)

    foregrounds = {}
    for role in ("source", "target"):
        word_map = torch.stack([r[role][0, :, :, 4].mean(0) for r in maps[1].after.values()]).mean(
            0
        )
        share = ((word_map - word_map.min()) / (word_map.max() - word_map.min())).view(4, 4)
        ground = share.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten() >= 0.5
        assert 0 < ground.sum() < 64
        foregrounds[role] = ground
    for role in ("negative", "target"):
        came = passes[1].before["up.2.1.self"][role]
        left = passes[1].after["up.2.1.self"][role]
        allowed = foregrounds["target"][:, None] == foregrounds["source"][None, :]
        expected = came[0] * allowed
        expected = expected / expected.sum(-1, keepdim=True)
        assert same(left[0], expected, 1e-5)
        assert same(left[1], came[1], 1e-5)
    assert torch.equal(
        passes[1].after["up.2.1.self"]["source"], passes[1].before["up.2.1.self"]["source"]
    )


def test_a_full_foreground_equals_no_mask(backbone: StableDiffusionBackbone) -> None:
    method = with_fields(METHOD, masked=True, mask_threshold=0.0)
    start = given(backbone, method, [0, 1])
    assert same(start.run(method), start.run(METHOD), 1e-4)


def test_what_it_uses() -> None:
    assert "target_words" in MasaCtrl(masked=True).uses
    assert "target_words" not in MasaCtrl().uses
