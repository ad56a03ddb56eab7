"""ZeCon's reading of the contrastive loss, against what is written in its authors' code."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.tiny import tiny_backbone
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Condition, Draws
from zerocon.core.levels import Level
from zerocon.core.taps import choose
from zerocon.losses import CrossAttention, Losses, ZeCon
from zerocon.losses.base import Look, Moment
from zerocon.losses.zecon import zecon_nce

TEXTS = ("a red circle", "a blue heart", "")


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def published(feat_q: Tensor, feat_k: Tensor, tau: float) -> Tensor:
    """Of one case's patches: cross entropy of the positive, and of the negatives without it."""
    q, k = (x / (x.pow(2).sum(1, keepdim=True).pow(0.5) + 1e-7) for x in (feat_q, feat_k))
    positive = (q * k).sum(1, keepdim=True)
    negatives = q @ k.T
    negatives[torch.eye(len(q), dtype=torch.bool)] = -10.0
    logits = torch.cat([positive, negatives], 1) / tau
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


@pytest.mark.parametrize("tau", [0.07, 5.0])  # at 5 the masked place counts
def test_it_is_the_published_formula(tau: float) -> None:
    q, k = randn(3, 9, 5), randn(3, 9, 5, seed=1)
    expected = torch.stack([published(q[i].clone(), k[i].clone(), tau) for i in range(3)])
    torch.testing.assert_close(zecon_nce(q, k, tau), expected, rtol=0, atol=1e-12)
    assert not torch.allclose(zecon_nce(k, q, tau), expected, rtol=0, atol=1e-6)  # k asks


@pytest.fixture(scope="module")
def precise(parts: Parts) -> StableDiffusionBackbone:
    ours = copy.deepcopy(parts)
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(3.0)
    return StableDiffusionBackbone(ours, "precise", torch.device("cpu"), torch.float64, "")


def look(backbone: StableDiffusionBackbone, z: Tensor, text: str, level: Level) -> Look:
    told, empty = (backbone.embed([t] * len(z)) for t in (text, ""))
    return Look(level, {"row": (z, told)}, {"zecon": 1.0}, empty)


def value(backbone: StableDiffusionBackbone, terms: Losses, z: Tensor, source: Tensor) -> Tensor:
    level = backbone.level(0.401)
    moment = Moment(0, 1, Draws(0, ["a"] * len(z)))
    with torch.no_grad():
        _, reference = terms.seen(backbone, look(backbone, source, TEXTS[0], level), whole=False)
    _, edit = terms.seen(backbone, look(backbone, z, TEXTS[1], level), whole=False)
    return terms(edit["row"], reference["row"], {"zecon": 1.0}, moment)


def mixture_features(backbone: StableDiffusionBackbone, z: Tensor, text: Condition) -> list[Tensor]:
    """Written out with the U-Net's own modules: what the authors' `forward_enc` gives."""
    unet, level = backbone.unet, backbone.level(0.401)
    abar = level.signal**2
    noise = unet(z, level.time, text.tokens).sample
    clean = (z - (1 - abar) ** 0.5 * noise) / abar**0.5
    share = (1 - abar) ** 0.5
    x = clean * share + z * (1 - share)
    empty = backbone.embed([""]).tokens.expand(len(z), -1, -1)
    emb = unet.time_embedding(unet.time_proj(torch.zeros(len(z))).to(x))
    h = unet.conv_in(x)
    found = [h]
    for block in unet.down_blocks:
        for layer, resnet in enumerate(block.resnets):
            h = resnet(h, emb)
            if getattr(block, "attentions", None):
                h = block.attentions[layer](h, encoder_hidden_states=empty).sample
        found.append(h)
        for down in block.downsamplers or []:
            h = down(h)
    return found


@torch.no_grad()
def test_the_term_reads_the_encoder_at_time_0_on_the_mixture(
    precise: StableDiffusionBackbone,
) -> None:
    z, source = randn(2, 4, 16, 16), randn(2, 4, 16, 16, seed=1)
    ours = value(precise, Losses(zecon=ZeCon()), z, source)
    features = [
        mixture_features(precise, latents, precise.embed([text] * 2))
        for latents, text in ((z, TEXTS[1]), (source, TEXTS[0]))
    ]
    expected = torch.stack(
        [
            sum(
                (
                    published(q[i].flatten(1).T.clone(), k[i].flatten(1).T.clone(), 0.07)
                    for q, k in zip(*features, strict=True)
                ),
                torch.zeros((), dtype=torch.float64),
            )
            for i in range(2)
        ]
    )
    assert [f.shape[1:] for f in features[0]] == [
        (8, 16, 16), (8, 16, 16), (16, 8, 8), (16, 4, 4), (16, 2, 2),
    ]  # fmt: skip
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_its_gradient_is_that_of_its_values(precise: StableDiffusionBackbone) -> None:
    """Through both passes: the mixture depends on the latent by the predicted clean latent, too."""
    terms, source = Losses(zecon=ZeCon(n_patches=20)), randn(1, 4, 16, 16, seed=1)
    z = randn(1, 4, 16, 16).requires_grad_()
    (slope,) = torch.autograd.grad(value(precise, terms, z, source).sum(), z)
    for seed in range(3):
        towards, step = randn(1, 4, 16, 16, seed=10 + seed), 1e-5
        with torch.no_grad():
            ahead, behind = (
                value(precise, terms, z + sign * step * towards, source) for sign in (1, -1)
            )
        estimated = ((ahead - behind) / (2 * step)).item()
        assert (slope * towards).sum().item() == pytest.approx(estimated, rel=1e-6)


def test_the_blocks_are_once_a_level(precise: StableDiffusionBackbone) -> None:
    chosen = choose(precise.taps.sites, ZeCon().sites, "hidden")
    assert [site.name for site in chosen] == [
        "in.0.0.block",
        *(f"down.{level}.1.block" for level in range(4)),
    ]


def test_places_are_drawn_anew_for_every_case_step_and_site() -> None:
    term = ZeCon(n_patches=5)

    def places(step: int, number: int) -> Tensor:
        moment = Moment(step, 10, Draws(0, ["a", "b"]))
        return term._places(16, number, moment)  # pyright: ignore[reportPrivateUsage]

    first = places(0, 0)
    assert first.shape == (2, 5)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, places(1, 0))
    assert not torch.equal(first, places(0, 1))
    assert torch.equal(first, places(0, 0))


@torch.no_grad()
def test_only_a_term_that_reads_at_zero_costs_a_second_pass(parts: Parts) -> None:
    backbone, z = tiny_backbone(copy.deepcopy(parts)), randn(1, 4, 16, 16).float()
    terms = Losses(xa=CrossAttention(), zecon=ZeCon())
    level, told = backbone.level(0.401), backbone.embed([""])
    for weights, passes, guesses in (
        ({"xa": 1.0, "zecon": 0.0}, 1, 0),
        ({"xa": 1.0, "zecon": 1.0}, 2, 1),
        ({"xa": 0.0, "zecon": 1.0}, 2, 1),
    ):
        before = backbone.evaluations.forward
        rows = Look(level, {"row": (z, told)}, weights, told)
        found, _ = terms.seen(backbone, rows, whole=False)
        assert backbone.evaluations.forward - before == passes
        assert len(found) == guesses
    assert backbone.taps.stack == []


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match=r"loss\.zecon\.n_patches is 1"):
        ZeCon(n_patches=1)
    with pytest.raises(ConfigError, match=r"loss\.zecon\.tau is 0"):
        ZeCon(tau=0)
