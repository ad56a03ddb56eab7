"""Prompt-to-Prompt beside its update rule (tests/parity/test_rule_p2p.py)."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest
import torch

from tests.methods.edits import Given, given, same, watched
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.cases import CaseError
from zerocon.core.checks import ConfigError
from zerocon.methods import p2p
from zerocon.methods.ddim import DDIM
from zerocon.methods.p2p import P2P

OFF = P2P(steps=4, guidance=3.0, cross=0.0, self_attention=0.0, local_blend=False)
CROSS = with_fields(OFF, cross=0.5)
CHANGED = 3  # "a big red ..." -> "a big blue ...": start, a, big, red
CIRCLE, GRAY = 4, 7  # "... circle on a gray ..."


def test_with_nothing_replaced_it_is_word_swap(backbone: StableDiffusionBackbone) -> None:
    start = given(backbone, OFF, [0, 1])
    assert same(start.run(OFF), start.run(DDIM(steps=4, guidance=3.0)))


def test_the_same_prompt_edits_nothing(backbone: StableDiffusionBackbone) -> None:
    method = P2P(steps=4, guidance=3.0)
    start = given(backbone, method, [0])
    words = [with_fields(w, target=w.source) for w in start.conditions.words]
    source = start.conditions.source
    start.conditions = with_fields(start.conditions, target=source, words=words)
    replayed = start.run(DDIM(steps=4, guidance=3.0, prompt="source"))
    assert same(start.run(method), replayed)


def test_a_word_may_have_a_schedule_of_its_own(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = with_fields(OFF, edit="replace", cross_words={"blue": [0.4, 0.8]})
    start = given(backbone, method, [0, 2])  # the other case has no blue
    passes = watched(monkeypatch, p2p, "up.3.2.cross", "probs")
    start.run(method)
    for step, seen in enumerate(passes):
        came, left = seen.before["up.3.2.cross"], seen.after["up.3.2.cross"]
        expected = came["target"].clone()
        if step in (2, 3):  # int(0.4 * 5) up to int(0.8 * 5)
            expected[0, ..., CHANGED] = came["source"][0, ..., CHANGED]
        assert same(left["target"], expected, 1e-6)


def test_local_blend_restores_the_source_outside(backbone: StableDiffusionBackbone) -> None:
    everywhere = P2P(steps=4, guidance=3.0, blend_start=0.0, blend_threshold=0.0)
    nowhere = with_fields(everywhere, blend_threshold=1.0)  # nothing is more than the largest
    start = given(backbone, nowhere, [0, 1])  # case 1 has no blend words
    unblended = start.run(with_fields(nowhere, local_blend=False))
    source = start.run(DDIM(steps=4, guidance=3.0, prompt="source"))
    held = start.run(nowhere)
    assert same(held[0], source[0])
    assert same(held[1], unblended[1])
    assert not same(unblended[0], source[0], 1e-2)
    assert same(start.run(everywhere), unblended)


def test_blending_starts_after_its_share_of_the_steps(backbone: StableDiffusionBackbone) -> None:
    method = P2P(steps=4, guidance=3.0, blend_threshold=1.0, blend_start=0.5)
    start = given(backbone, method, [0])
    # Held at the source from step 2 on; until then free, which leaves no trace behind.
    source = start.run(DDIM(steps=4, guidance=3.0, prompt="source"))
    assert same(start.run(method), source)
    assert not same(start.run(with_fields(method, blend_start=1.0)), source, 1e-2)


def test_a_mask_by_hand_that_spares_a_word(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = P2P(steps=2, guidance=3.0, blend_start=0.5, blend_threshold=0.9, blend_spares=["gray"])
    start = given(backbone, method, [0])
    passes = watched(monkeypatch, p2p, "down.*.cross@1/4,up.*.cross@1/4", "probs")
    edited = start.run(method)
    assert len(passes[0].after) == 5

    def word_map(role: str, token: int) -> torch.Tensor:
        maps = [roles[role][0, :, :, token] for seen in passes for roles in seen.after.values()]
        return torch.stack([m.mean(0) for m in maps]).sum(0).view(1, 4, 4)

    def large(word_map: torch.Tensor) -> torch.Tensor:
        return (word_map[0] / word_map.max() > 0.9).repeat_interleave(4, 0).repeat_interleave(4, 1)

    roles = ("source", "target")
    near = [
        large(torch.nn.functional.max_pool2d(word_map(role, CIRCLE), 3, 1, 1)) for role in roles
    ]
    mask = near[0] | near[1]
    spared = large(word_map("source", GRAY)) | large(word_map("target", GRAY))
    assert (mask & spared).any()
    mask = mask & ~spared
    assert 0 < mask.sum() < mask.numel()
    source = start.run(DDIM(steps=2, guidance=3.0, prompt="source"))
    assert same(edited[0][:, ~mask], source[0][:, ~mask])
    assert (edited[0][:, mask] - source[0][:, mask]).abs().amax(0).min() > 1e-4


def test_the_source_row_has_its_own_guidance(backbone: StableDiffusionBackbone) -> None:
    method = P2P(steps=3, guidance=3.0, source_guidance=1.0, blend_threshold=1.0, blend_start=0.0)
    start = given(backbone, method, [0])
    assert same(start.run(method), start.run(DDIM(steps=3, guidance=1.0, prompt="source")))


def longer_target(start: Given) -> Given:
    (words,) = start.conditions.words
    words = with_fields(words, target_split=(*words.target_split, (7,)))
    start.conditions = with_fields(start.conditions, words=[words])
    return start


def test_prompts_that_can_not_be_aligned_have_a_message(backbone: StableDiffusionBackbone) -> None:
    start = longer_target(given(backbone, CROSS, [0]))
    with pytest.raises(CaseError, match="needs equal numbers"):
        start.run(with_fields(CROSS, edit="replace"))
    start.conditions = with_fields(start.conditions, words=[])
    with pytest.raises(ValueError, match=r"Conditions\.words"):
        start.run(CROSS)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"method.cross_words.blue is \[0.8, 0.2\]"):
        P2P(cross_words={"blue": [0.8, 0.2]})
    with pytest.raises(ConfigError, match=r"method.cross is 2"):
        P2P(cross=2)
