"""Stable Diffusion XL through the interface of every backbone, on a small random model."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tests.marks import slow_but_for
from tests.tiny import eps, tiny_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.loading import fingerprint_of
from zerocon.backbones.sdxl import SDXL, SDXLBackbone, XLParts
from zerocon.config.bind import build, method_of
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.forward import predict
from zerocon.core.prompts import words_of
from zerocon.core.size import Size
from zerocon.core.taps import choose, record
from zerocon.inversions.base import Trajectory
from zerocon.losses import ZeCon
from zerocon.methods.ddim import DDIM

PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]
SIDE = 32  # pixels
# Where a method's usual sites count more blocks than the tiny model has.
TINY = {
    "masactrl": ["method.sites='self#6..9'", "method.first_step=1"],
}


def tiny_xl_parts(folder: Path) -> XLParts:
    """Three levels, the first without attention; two transformer blocks in the deepest."""
    plain_parts = tiny_parts(folder)
    end = plain_parts.tokenizer.eos_token_id
    second = CLIPTextConfig(
        vocab_size=len(plain_parts.tokenizer),
        hidden_size=48,
        intermediate_size=64,
        projection_dim=40,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2,
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=32 + 48,
        attention_head_dim=(2, 2, 2),
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 40,
    )
    return XLParts(
        vae=plain_parts.vae,
        unet=unet,
        text_encoder=plain_parts.text_encoder,
        tokenizer=plain_parts.tokenizer,
        scheduler=plain_parts.scheduler,
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer_2=plain_parts.tokenizer,
    )


@pytest.fixture(scope="module")
def xl_parts(tmp_path_factory: pytest.TempPathFactory) -> XLParts:
    return tiny_xl_parts(tmp_path_factory.mktemp("tiny-xl"))


@pytest.fixture(scope="module")
def pipe(xl_parts: XLParts) -> StableDiffusionXLPipeline:
    theirs = copy.deepcopy({name: getattr(xl_parts, name) for name in XLParts.classes})
    return StableDiffusionXLPipeline(**theirs, add_watermarker=False)


@pytest.fixture(scope="module")
def backbone(pipe: StableDiffusionXLPipeline, xl_parts: XLParts) -> SDXLBackbone:
    cpu = torch.device("cpu")
    return SDXLBackbone(xl_parts, "tiny-xl", cpu, torch.float32, fingerprint_of(xl_parts))


def test_conditions_equal_the_pipelines(
    pipe: StableDiffusionXLPipeline, backbone: SDXLBackbone
) -> None:
    ours = backbone.embed([*PROMPTS, ""])
    assert ours.tokens.shape == (3, 77, 32 + 48)
    assert ours.pooled is not None
    tokens, empty, pooled, empty_pooled = pipe.encode_prompt(PROMPTS)
    torch.testing.assert_close(ours.tokens[:2], tokens)
    torch.testing.assert_close(ours.pooled[:2], pooled)
    # No negative prompt: zeros, as the pipeline does it.
    assert not empty.any()
    assert not empty_pooled.any()
    assert not ours.tokens[2].any()
    assert not ours.pooled[2].any()


def test_the_noise_equals_the_pipelines(
    pipe: StableDiffusionXLPipeline, backbone: SDXLBackbone
) -> None:
    z = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens, _, pooled, _ = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    sizes = pipe._get_add_time_ids(
        (SIDE, SIDE), (0, 0), (SIDE, SIDE), tokens.dtype, pipe.text_encoder_2.config.projection_dim
    )
    added = {"text_embeds": pooled, "time_ids": sizes.expand(2, -1)}
    theirs = pipe.unet(z, 500, encoder_hidden_states=tokens, added_cond_kwargs=added).sample
    torch.testing.assert_close(eps(backbone, z, 500, backbone.embed(PROMPTS)), theirs)


def test_it_is_told_height_and_width_in_the_pipelines_order(
    pipe: StableDiffusionXLPipeline, xl_parts: XLParts
) -> None:
    start = torch.randn(1, 4, 8, 20, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPTS[0],
        num_inference_steps=2,
        guidance_scale=5.0,
        latents=start.clone(),
        output_type="latent",
        height=16,
        width=40,
    ).images
    cpu, size = torch.device("cpu"), Size(16, 40)
    backbone = SDXLBackbone(copy.deepcopy(xl_parts), "wide", cpu, torch.float32, "", size)
    cond, empty = backbone.embed(PROMPTS[:1]), backbone.embed([""])
    trajectory = Trajectory(backbone.path(2), start.expand(3, *start.shape))
    conditions = Conditions(cond, cond, empty)
    ours = DDIM(steps=2, guidance=5.0)(backbone, trajectory, conditions, Draws(0, ["a"]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_zecons_blocks_follow_the_same_rule(backbone: SDXLBackbone) -> None:
    chosen = choose(backbone.taps.sites, ZeCon().sites, "hidden")
    assert [(site.name, site.scale) for site in chosen] == [
        ("in.0.0.block", 1),
        ("down.0.1.block", 1),
        ("down.1.1.block", 2),
        ("down.2.1.block", 4),
    ]


def test_sampling_equals_the_pipeline(
    pipe: StableDiffusionXLPipeline, backbone: SDXLBackbone
) -> None:
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        PROMPTS[0],
        num_inference_steps=3,
        guidance_scale=5.0,
        latents=start.clone(),
        output_type="latent",
        height=SIDE,
        width=SIDE,
    ).images
    cond, empty = backbone.embed(PROMPTS[:1]), backbone.embed([""])
    trajectory = Trajectory(backbone.path(3), start.expand(4, *start.shape))
    conditions = Conditions(cond, cond, empty)
    ours = DDIM(steps=3, guidance=5.0)(backbone, trajectory, conditions, Draws(0, ["a"]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_saved_folder_loads_the_same_model(
    pipe: StableDiffusionXLPipeline, backbone: SDXLBackbone, tmp_path: Path
) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = SDXL(str(tmp_path), device="cpu").load()
    assert (loaded.fingerprint, loaded.size) == (backbone.fingerprint, (SIDE, SIDE))
    z = torch.randn(2, 4, 16, 16)
    cond = loaded.embed(PROMPTS)
    torch.testing.assert_close(eps(loaded, z, 500, cond), eps(backbone, z, 500, cond))
    spoken = SDXL(str(tmp_path), device="cpu", empty_as_zeros=False).load()
    assert spoken.embed([""]).tokens.any()
    assert spoken.fingerprint != backbone.fingerprint


def test_a_missing_model_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"zerocon download sdxl\n.*backbone=sdxl"):
        SDXL(str(tmp_path / "nowhere"), device="cpu").load()


def test_cross_attention_has_a_row_for_each_token(backbone: SDXLBackbone) -> None:
    z, cond = torch.randn(1, 4, 16, 16), backbone.embed(PROMPTS[:1])
    with record(backbone.taps, "cross", "probs") as seen:
        predict(backbone, backbone.level(0.5), {"target": (z, cond)})
    # Two layers a level going down, three going up, one in the middle; the deepest level and
    # the middle have two blocks a layer: 2 + 4 + 2 + 6 + 3.
    assert len(seen) == 17
    assert {maps.shape[-1] for maps in seen.of("target")} == {77}


ATTENTION = sorted(
    file.stem for file in (CONF / "method").glob("*.yaml") if file.stem != "reconstruct"
)


@pytest.mark.parametrize("name", slow_but_for(("zerocon", "pnp", "p2p", "masactrl"), ATTENTION))
def test_every_method_runs(backbone: SDXLBackbone, name: str) -> None:
    own = [f"method={name}", "method.steps=2", *TINY.get(name, [])]
    config = plain(compose_config(["backbone=sdxl", *own]))
    method = method_of(config)
    inversion = build(config, "inversion")()
    case = Case("a", torch.rand(3, SIDE, SIDE), *PROMPTS, blend_words=("circle", "house"))
    clean = backbone.encode(case.image[None])
    conditions = Conditions(
        *(backbone.embed([prompt]) for prompt in (*PROMPTS, "")),
        [words_of(backbone, case)],
        torch.ones(1, 1, *case.image.shape[1:]),
    )
    draws = Draws(0, ["a"])
    trajectory = inversion(backbone, clean, conditions, 2, draws)
    edited = method(backbone, trajectory, conditions, draws)
    assert edited.shape == clean.shape
    assert edited.isfinite().all()
    assert (edited - clean).abs().max() > 0
