"""Against the authors' pipeline, which diffusers keeps among its deprecated ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_stable_diffusion_pix2pix_zero import (  # noqa: E501
    StableDiffusionPix2PixZeroPipeline,
)
from torch import Tensor

from tests.tiny import losses
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.commands.bench import published_pix2pix_zero
from zerocon.config.settings import compose_settings
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Trajectory
from zerocon.inversions.regularized import RegularizedInversion
from zerocon.methods.zerocon import ZeroCon
from zerocon.runs.counting import count_rows

STEPS, GUIDANCE = 5, 7.5
SOURCE, TARGET = "a big red circle on a gray background", "a big blue square on a gray background"


@pytest.fixture(scope="module")
def sharp_parts(parts: Parts) -> Parts:
    """A random U-Net's attention is nearly uniform, its loss nearly flat; make both count.

    In double precision: what agrees to 1e-9 is the same arithmetic.
    """
    ours = copy.deepcopy(parts)
    for module in ours.modules:
        module.double()
    for name, weight in ours.unet.named_parameters():
        if "to_q" in name or "to_k" in name:
            weight.data.mul_(2.0)
    return ours


@pytest.fixture(scope="module")
def backbone(sharp_parts: Parts) -> StableDiffusionBackbone:
    cpu, parts = torch.device("cpu"), copy.deepcopy(sharp_parts)
    return StableDiffusionBackbone(parts, "precise", cpu, torch.float64, "precise")


def precise(scheduler: Any) -> Any:
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    for name in ("final_alpha_cumprod", "initial_alpha_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    return scheduler


def published(parts: Parts) -> Any:
    pipe = StableDiffusionPix2PixZeroPipeline(
        vae=copy.deepcopy(parts.vae),
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=copy.deepcopy(parts.unet),
        scheduler=precise(copy.deepcopy(parts.scheduler)),
        inverse_scheduler=precise(DDIMInverseScheduler.from_config(parts.scheduler.config)),
        safety_checker=None,
        feature_extractor=None,
        caption_generator=None,
        caption_processor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def their_edit(parts: Parts, start: Tensor, conditions: Conditions, amount: float) -> Tensor:
    return published(parts)(
        prompt_embeds=conditions.source.tokens,
        negative_prompt_embeds=conditions.negative.tokens,
        source_embeds=conditions.source.tokens,
        target_embeds=conditions.target.tokens,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        cross_attention_guidance_amount=amount,
        latents=start.clone(),
        output_type="latent",
        height=32,
        width=32,
    ).images


def conditions_of(backbone: StableDiffusionBackbone) -> Conditions:
    source, target, negative = (backbone.embed([p]) for p in (SOURCE, TARGET, ""))
    # Their direction is a difference that is added to the source, whose last bit may differ.
    moved = target.with_(source, lambda after, before: before + (after - before))
    return Conditions(source, moved, negative)


@pytest.mark.slow
def test_the_edit_is_the_published_one(
    sharp_parts: Parts, backbone: StableDiffusionBackbone
) -> None:
    start = torch.randn(
        1, 4, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    conditions = conditions_of(backbone)
    theirs = their_edit(sharp_parts, start, conditions, amount=1.0)
    trajectory = Trajectory(backbone.path(STEPS), start.expand(STEPS + 1, *start.shape))
    ours = {
        weight: ZeroCon(
            losses(xa_weight=weight),
            steps=STEPS,
            guidance=GUIDANCE,
            source_guidance=GUIDANCE,
            update="per_branch",
        )(backbone, trajectory, conditions, Draws(0, ["a"]))
        for weight in (1.0, 0.0)
    }
    torch.testing.assert_close(ours[1.0], theirs, rtol=0, atol=1e-9)
    assert (ours[0.0] - theirs).abs().max() > 0.01  # the loss counts


def test_the_regularised_inversion_is_the_published_one(
    sharp_parts: Parts, backbone: StableDiffusionBackbone
) -> None:
    clean = torch.randn(
        1, 4, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    conditions, draws = conditions_of(backbone), Draws(0, ["a"])
    pipe = published(sharp_parts)
    theirs = pipe.invert(
        prompt_embeds=conditions.source.tokens,
        image=clean,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        generator=draws.generator("a", "rolls"),
        output_type="latent",
    ).latents
    ours = RegularizedInversion()(backbone, clean, conditions, STEPS, draws)
    torch.testing.assert_close(ours.start, theirs, rtol=0, atol=1e-9)
    plain = RegularizedInversion(auto_correlation=0.0, kl=0.0)
    unregularised = plain(backbone, clean, conditions, STEPS, draws).start
    assert (unregularised - theirs).abs().max() > 0.01


@pytest.mark.slow
def test_ours_costs_less_than_two_thirds_of_theirs(
    sharp_parts: Parts, backbone: StableDiffusionBackbone
) -> None:
    """Their rows are counted in their network, ours by the backbone."""
    pipe = published(sharp_parts)
    rows = {"forward": 0, "backward": 0}
    forward = pipe.unet.forward

    def counting(z: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows["forward"] += len(z)
        rows["backward"] += len(z) if torch.is_grad_enabled() and z.requires_grad else 0
        return forward(z, *args, **kwargs)

    pipe.unet.forward = counting
    conditions = conditions_of(backbone)
    start = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    pipe(
        prompt_embeds=conditions.source.tokens, negative_prompt_embeds=conditions.negative.tokens,
        source_embeds=conditions.source.tokens, target_embeds=conditions.target.tokens,
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=start,
        output_type="latent", height=32, width=32,
    )  # fmt: skip
    theirs = published_pix2pix_zero(STEPS)
    assert rows == {"forward": theirs.forward, "backward": theirs.backward}
    settings = compose_settings(["method=zerocon", f"method.steps={STEPS}"])
    ours = count_rows(settings, backbone)
    assert ours.method <= 0.65 * theirs.method
    assert ours.forward + 2 * ours.backward <= 0.65 * (theirs.forward + 2 * theirs.backward)
