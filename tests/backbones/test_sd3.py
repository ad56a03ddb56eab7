"""Stable Diffusion 3 and 3.5 against diffusers' own pipeline, on small random models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from tests.marks import every
from tests.tiny_transformers import tiny_sd3, tiny_sd3_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.sd3 import SD3, SD3Backbone, SD3PartsWithoutT5
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.base import Trajectory
from zerocon.methods.ddim import DDIM

PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]
# Transformers as in SD3-medium, SD3.5-large and SD3.5-medium, each with T5 and without.
KINDS: dict[str, dict[str, Any]] = {
    "sd3": {},
    "sd3 without T5": {"t5": False},
    "sd35_large": {"qk_norm": "rms_norm"},
    "sd35_medium": {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "sd35_medium without T5": {
        "qk_norm": "rms_norm",
        "dual_attention_layers": (0, 1),
        "t5": False,
    },
}


@pytest.fixture(scope="module", params=KINDS)
def parts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SD3PartsWithoutT5:
    return tiny_sd3_parts(tmp_path_factory.mktemp("sd3"), **KINDS[request.param])


def pipeline_of(parts: SD3PartsWithoutT5) -> StableDiffusion3Pipeline:
    names = [*type(parts).classes, "text_encoder_3", "tokenizer_3"]
    pipe = StableDiffusion3Pipeline(**copy.deepcopy({n: getattr(parts, n) for n in names}))
    for module in parts_with_weights(pipe):
        module.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parts_with_weights(pipe: Any) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


def start(height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(1, 16, height, width, generator=torch.Generator().manual_seed(0))


def sampled(backbone: SD3Backbone, z: Tensor, steps: int, guidance: float) -> Tensor:
    cond, empty = backbone.embed(PROMPTS[:1]), backbone.embed([""])
    trajectory = Trajectory(backbone.path(steps), z.expand(steps + 1, *z.shape))
    conditions = Conditions(cond, cond, empty)
    return DDIM(steps=steps, guidance=guidance)(backbone, trajectory, conditions, Draws(0, ["a"]))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40)])
def test_sampling_equals_the_pipeline(parts: SD3PartsWithoutT5, height: int, width: int) -> None:
    pipe = pipeline_of(parts)
    backbone = tiny_sd3(copy.deepcopy(parts), size=(height, width))
    z = start(height // 2, width // 2)
    theirs = pipe(
        PROMPTS[0],
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=z.clone(),
        output_type="latent",
        height=height,
        width=width,
    ).images
    ours = sampled(backbone, z, 3, 4.0)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - z).abs().mean() > 0.5


def test_the_condition_equals_the_pipelines(parts: SD3PartsWithoutT5) -> None:
    theirs, empty, pooled, empty_pooled = pipeline_of(parts).encode_prompt(PROMPTS, None, None)
    ours = tiny_sd3(copy.deepcopy(parts)).embed([*PROMPTS, "", ""])
    assert ours.pooled is not None
    torch.testing.assert_close(ours.pooled, torch.cat([pooled, empty_pooled]))
    expected = torch.cat([theirs, empty])
    if parts.text_encoder_3 is None:
        assert expected.shape[1] == 77 + 256
        assert not expected[:, 77:].any()
        expected = expected[:, : 77 + 1]  # one stands for all
    torch.testing.assert_close(ours.tokens, expected)


@pytest.mark.parametrize("steps", every(2, [1, 4, 28, 50]))
def test_the_path_equals_the_schedulers(parts: SD3PartsWithoutT5, steps: int) -> None:
    """Also its smallest sigma, which is shifted twice."""
    scheduler = copy.deepcopy(parts.scheduler)
    scheduler.set_timesteps(steps)
    path = tiny_sd3(copy.deepcopy(parts)).path(steps)
    assert [level.noise for level in path.levels] == scheduler.sigmas.tolist()
    told = torch.tensor([level.time for level in path.levels[:-1]])
    torch.testing.assert_close(told, scheduler.timesteps, rtol=0, atol=1e-4)
    assert path.levels[-1].signal == 1.0


def test_encoding_and_decoding_equal_the_pipeline(parts: SD3PartsWithoutT5) -> None:
    pipe, backbone = pipeline_of(parts), tiny_sd3(copy.deepcopy(parts))
    image = torch.rand(2, 3, 32, 32)
    latents = backbone.encode(image)
    theirs = pipe.vae.encode(image * 2 - 1).latent_dist.mean
    torch.testing.assert_close(latents, (theirs - 0.0609) * 1.5305)
    decoded = pipe.vae.decode(latents / 1.5305 + 0.0609).sample
    torch.testing.assert_close(backbone.decode(latents), (decoded / 2 + 0.5).clamp(0, 1))


def test_a_saved_folder_loads_the_same_model(parts: SD3PartsWithoutT5, tmp_path: Path) -> None:
    pipeline_of(parts).save_pretrained(tmp_path)
    backbone = tiny_sd3(copy.deepcopy(parts))
    t5 = parts.text_encoder_3 is not None
    loaded = SD3(str(tmp_path), device="cpu", t5=t5).load()
    assert (loaded.fingerprint, loaded.size) == (backbone.fingerprint, (32, 32))
    torch.testing.assert_close(sampled(loaded, start(), 2, 4.0), sampled(backbone, start(), 2, 4.0))
    if t5:
        without = SD3(str(tmp_path), device="cpu", t5=False).load()
        assert without.fingerprint != backbone.fingerprint
        assert without.embed(PROMPTS).tokens.shape[1] == 77 + 1
    else:
        with pytest.raises(BackboneError, match="text_encoder_3"):
            SD3(str(tmp_path), device="cpu").load()


def test_a_text_encoder_with_fewer_tokens(tmp_path: Path) -> None:
    """The tokenizers determine the number of tokens; there may be fewer zeros for T5."""
    parts = tiny_sd3_parts(tmp_path, t5=False, qk_norm="rms_norm")
    for tokenizer in (parts.tokenizer, parts.tokenizer_2):
        tokenizer.model_max_length = 32
    theirs = pipeline_of(parts)(
        PROMPTS[0],
        num_inference_steps=2,
        guidance_scale=4.0,
        latents=start(),
        output_type="latent",
        max_sequence_length=20,
    ).images
    backbone = tiny_sd3(parts, t5_tokens=20)
    assert backbone.embed(PROMPTS).tokens.shape[1] == 32 + 1
    torch.testing.assert_close(sampled(backbone, start(), 2, 4.0), theirs, rtol=0, atol=1e-5)


def test_unsupported_sizes_are_refused(tmp_path: Path) -> None:
    parts = tiny_sd3_parts(tmp_path, t5=False)
    with pytest.raises(ConfigError, match=r"are 30 and 32; each must be a multiple of 4"):
        tiny_sd3(parts, size=(30, 32))
    with pytest.raises(ConfigError, match=r"are 32 and 100; this model takes at most 96"):
        tiny_sd3(parts, size=(32, 100))
    with pytest.raises(ConfigError, match=r"height and backbone\.width go together"):
        SD3("x", height=32)
    with pytest.raises(ConfigError, match=r"not both"):
        SD3("x", side=32, height=32, width=32)


def test_a_missing_model_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"zerocon download sd3\n.*backbone=sd3"):
        SD3(str(tmp_path / "nowhere"), device="cpu").load()
