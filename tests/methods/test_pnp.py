"""Plug-and-Play beside its update rule (tests/parity/test_rule_pnp.py)."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest

from tests.methods.edits import given, same, watched
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.methods import pnp
from zerocon.methods.ddim import DDIM
from zerocon.methods.pnp import PnP


def test_without_injection_it_is_word_swap(backbone: StableDiffusionBackbone) -> None:
    plain = PnP(steps=3, guidance=3.0, attention=0.0, features=0.0)
    start = given(backbone, plain, [0, 1])
    assert same(start.run(plain), start.run(DDIM(steps=3, guidance=3.0)))


def test_a_replayed_source_that_is_pinned_is_its_trajectory(
    backbone: StableDiffusionBackbone,
) -> None:
    method = PnP(steps=3, guidance=3.0, source="replayed")
    start = given(backbone, method, [0])
    own_path = start.run(with_fields(method, source="trajectory"))
    assert not same(start.run(method), own_path, 1e-3)
    start.trajectory = with_fields(start.trajectory, pinned=True)
    assert same(start.run(method), own_path)


def test_the_method_has_its_own_negative_prompt(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PnP(steps=1, negative_prompt="a small ring")
    start = given(backbone, method, [0, 2])
    passes = watched(monkeypatch, pnp, "up.1.1.self", "keys")
    start.run(method)
    said = backbone.embed(["a small ring"])
    assert same(passes[0].rows["negative"][1].tokens, said.tokens.expand(2, -1, -1))
    assert "negative" not in method.uses
    assert "negative" in PnP().uses


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"method.attention is 1.5"):
        PnP(attention=1.5)
    with pytest.raises(ConfigError, match="chooses no sites"):
        PnP(feature_sites="up 1")
