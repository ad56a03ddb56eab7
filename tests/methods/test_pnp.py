"""Plug-and-Play: rows, layers and steps."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest
import torch

from tests.methods.edits import given, same, watched
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.methods import pnp
from zerocon.methods.ddim import DDIM
from zerocon.methods.pnp import PnP

INJECTED = {"up.1.1.self", "up.1.2.self"} | {f"up.{b}.{k}.self" for b in (2, 3) for k in range(3)}


def test_without_injection_it_is_word_swap(backbone: StableDiffusionBackbone) -> None:
    plain = PnP(steps=3, guidance=3.0, attention=0.0, features=0.0)
    start = given(backbone, plain, [0, 1])
    assert same(start.run(plain), start.run(DDIM(steps=3, guidance=3.0)))


def test_queries_and_keys_are_the_sources_at_its_layers_and_steps(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PnP(steps=4, guidance=3.0, attention=0.5, features=0.0)
    start = given(backbone, method, [0])
    for what in ("queries", "keys", "values"):
        passes = watched(monkeypatch, pnp, "self", what)
        start.run(method)
        for step, seen in enumerate(passes):
            changed = {
                site
                for site, roles in seen.after.items()
                if not torch.equal(roles["target"], seen.before[site]["target"])
            }
            assert changed == (INJECTED if step < 2 and what != "values" else set())
            for site in changed:
                roles = seen.after[site]
                assert torch.equal(roles["target"], roles["source"])
                assert torch.equal(roles["negative"], roles["source"])
                assert torch.equal(roles["source"], seen.before[site]["source"])


def test_features_are_the_sources_at_one_layer_for_longer(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PnP(steps=4, guidance=3.0, attention=0.0, features=0.8)
    start = given(backbone, method, [0])
    passes = watched(monkeypatch, pnp, "res", "features")
    start.run(method)
    for step, seen in enumerate(passes):
        for site, roles in seen.after.items():
            injected = site == "up.1.1.res" and step < 3  # int(0.8 * 4)
            for role in ("target", "negative"):
                came = seen.before[site][role]
                assert torch.equal(roles[role], roles["source"] if injected else came)
                moved = injected and role == "target"  # at first both others are the same
                assert not moved or not torch.equal(roles[role], came)


@pytest.mark.parametrize(("share", "steps"), [(0.7, 2), (0.74, 2), (0.75, 3)])
def test_shares_of_the_steps_are_rounded_down(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch, share: float, steps: int
) -> None:
    method = PnP(steps=4, guidance=3.0, attention=share, features=share)
    start = given(backbone, method, [0])
    for sites, what in (("up.1.1.self", "queries"), ("up.1.1.res", "features")):
        passes = watched(monkeypatch, pnp, sites, what)
        start.run(method)
        (site,) = passes[0].after
        taken = [torch.equal(p.after[site]["target"], p.after[site]["source"]) for p in passes]
        assert sum(taken) == steps


def test_the_source_follows_its_trajectory_under_the_empty_prompt(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PnP(steps=3, guidance=3.0)
    start = given(backbone, method, [0, 2])
    passes = watched(monkeypatch, pnp, "up.1.1.self", "keys")
    start.run(method)
    for step, seen in enumerate(passes):
        latents, condition = seen.rows["source"]
        assert torch.equal(latents, start.trajectory.latents[3 - step])
        assert torch.equal(condition.tokens, start.conditions.negative.tokens)


def test_a_replayed_source_is_sampled_again_unless_it_is_pinned(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PnP(steps=3, guidance=3.0, source="replayed")
    start = given(backbone, method, [0])
    passes = watched(monkeypatch, pnp, "up.1.1.self", "keys")
    start.run(method)
    z = start.trajectory.start
    for step, seen in enumerate(passes):
        assert same(seen.rows["source"][0], z)
        with torch.no_grad():
            level, there = start.trajectory.path.steps[step]
            z = backbone.predict(z, level, start.conditions.source).at(there)
    assert not same(z, start.trajectory.clean, 1e-3)

    start.trajectory = with_fields(start.trajectory, pinned=True)
    assert same(start.run(method), start.run(with_fields(method, source="trajectory")))


def test_a_late_source_is_a_replayed_step_ahead_and_so_is_the_start(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = PnP(steps=3, guidance=3.0, source="late")
    start = given(backbone, method, [0])
    passes = watched(monkeypatch, pnp, "up.1.1.self", "keys")
    start.run(method)
    seen = [p for p in passes if "source" in p.rows]
    assert [set(p.rows) for p in passes if "source" not in p.rows] == 3 * [{"replay"}]
    z = start.trajectory.start
    for step, one in enumerate(seen):
        with torch.no_grad():
            level, there = start.trajectory.path.steps[step]
            z = backbone.predict(z, level, start.conditions.source).at(there)
        assert same(one.rows["source"][0], z)
        assert same(one.rows["target"][0], z) == (step == 0)


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
