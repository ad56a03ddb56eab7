"""Terms of the losses: what they read, which patches they draw, how they are summed."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import eps, losses
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Draws
from zerocon.core.taps import Seen, Site
from zerocon.losses import CrossAttention, Losses, PatchNCE
from zerocon.losses.base import Moment, View

SITE = Site("up.1.1.self", "self", 1, 0, (4, 4))
FINE, COARSE = (Site(f"cross {s}", "cross", 4 // s, 0, (s, s)) for s in (4, 2))


def moment(step: int = 0, tokens: torch.Tensor | None = None) -> Moment:
    return Moment(step, 10, Draws(0, ["a", "b"]), tokens)


def test_patches_are_drawn_anew_at_every_step_and_for_every_case() -> None:
    term = PatchNCE(n_patches=5)
    first, second = (term._places(16, "0/1", moment(step)) for step in (0, 1))  # pyright: ignore[reportPrivateUsage]
    assert first.shape == (2, 5)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, term._places(16, "0/1", moment(0)))  # pyright: ignore[reportPrivateUsage]
    assert not torch.equal(first, term._places(16, "1/1", moment(0)))  # pyright: ignore[reportPrivateUsage]
    shared = PatchNCE(n_patches=5, shared_patches=True)
    one, other = (shared._places(16, where, moment()) for where in ("0/1", "1/1"))  # pyright: ignore[reportPrivateUsage]
    assert torch.equal(one, other)


def test_the_background_is_where_the_mean_attention_to_the_edited_words_is_low() -> None:
    """Two layers, two heads: the mean over heads, then over layers, of one word's attention."""
    fine = torch.zeros(1, 2, 16, 3)
    fine[0, 0, 0, 1], fine[0, 1, 0, 1] = 0.8, 0.4  # mean 0.6 at the first position
    fine[0, 0, 5, 1] = 0.6  # mean 0.3, though its largest head is as high as 0.6
    fine[0, :, 9, 2] = 1.0  # another word
    coarse = torch.zeros(1, 2, 4, 3)
    term = PatchNCE(positions="background", background_below=0.6)
    seen = Seen([FINE, COARSE])
    seen.keep(FINE, {"source": fine})
    seen.keep(COARSE, {"source": coarse})
    view = View({(term.attention_sites, "probs"): seen}, "source")
    tokens = torch.tensor([[0.0, 1.0, 0.0, 0.0]])  # a condition may have more rows than a map
    found = term._background(view, moment(tokens=tokens))  # pyright: ignore[reportPrivateUsage]
    assert found is not None
    expected = torch.ones(4, 4)
    expected[0, 0] = 0  # 0.3 of 0.3; the other place has 0.15
    assert torch.equal(found[0, 0], expected)
    expected[1, 1] = 0  # what has the share itself is no background either: 0.15 of 0.3
    term = PatchNCE(positions="background", background_below=0.5)
    found = term._background(view, moment(tokens=tokens))  # pyright: ignore[reportPrivateUsage]
    assert found is not None
    assert torch.equal(found[0, 0], expected)


def test_two_patches_can_be_told_apart_and_one_cannot() -> None:
    term = PatchNCE(sites="self", patch_sizes=(1,))

    def loss(features: torch.Tensor) -> torch.Tensor:
        site = Site("s", "self", 1, 0, (1, features.shape[1]))
        seen = Seen([site])
        seen.keep(site, {"edit": features})
        view = View({("self", "output"): seen}, "edit")
        return term(view, view, moment())

    assert (loss(torch.eye(2).expand(2, 2, 2)) > 0).all()
    assert (loss(torch.ones(2, 1, 2)) == 0).all()


def test_a_third_term_changes_no_signature(backbone: StableDiffusionBackbone) -> None:
    both = losses(xa_weight=2.0, weight=1.0, n_patches=8)
    three = Losses(**both.terms, keys=PatchNCE(weight=0.5, features="keys", n_patches=8))
    z = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    texts = backbone.embed(["a red circle", "a blue heart"])

    def total(terms: Losses) -> torch.Tensor:
        weights = terms.weights(0, 1)
        views: list[View] = []
        for latents in z:
            with terms.watching(backbone.taps, weights, stop=False) as watch, torch.no_grad():
                eps(backbone, latents, 401, texts)
                views.append(watch("all"))
        return terms(views[0], views[1], weights, moment())

    alone = Losses(keys=PatchNCE(weight=0.5, features="keys", n_patches=8))
    torch.testing.assert_close(total(three), total(both) + total(alone))
    assert total(three).shape == (2,)


def test_only_terms_with_a_weight_are_recorded(backbone: StableDiffusionBackbone) -> None:
    terms = losses(xa_weight=1.0, weight=1.0, xa_window=(0.0, 0.5), window=(0.5, 1.0))
    for step, what in ((0, "probs"), (3, "output")):
        with terms.watching(backbone.taps, terms.weights(step, 4), stop=False):
            assert {tap.what for tap in backbone.taps.stack} == {what}
    with terms.watching(backbone.taps, {"xa": 0.0, "cut": 0.0}, stop=True):
        assert backbone.taps.stack == []


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss\.xa\.weight is -1"):
        CrossAttention(weight=-1)
    with pytest.raises(ConfigError, match=r"loss\.cut\.window is \[0\.5, 0\.2\]; give the first"):
        PatchNCE(window=(0.5, 0.2))
    with pytest.raises(ConfigError, match=r"loss\.cut\.patch_sizes is \[nan\]"):
        PatchNCE(patch_sizes=(float("nan"),))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="loss has no terms"):
        Losses()
