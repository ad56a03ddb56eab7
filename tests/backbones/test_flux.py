"""FLUX.1-dev and FLUX.1-schnell against diffusers' own pipeline, on small random models."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.models.transformers import transformer_flux
from torch import Tensor, nn

from tests.tiny_transformers import tiny_flux, tiny_flux_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.flux import Flux, FluxBackbone, FluxParts, packed, unpacked
from zerocon.backbones.mmdit_sites import rotated
from zerocon.core.cases import Case
from zerocon.core.checks import ConfigError
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.prompts import edited_tokens, words_of
from zerocon.inversions.base import Trajectory
from zerocon.methods.ddim import DDIM

PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]
SIZES = [(32, 32), (24, 40)]
TEXT = 24


@pytest.fixture(scope="module", params=["dev", "schnell"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FluxParts:
    schnell = request.param == "schnell"
    return tiny_flux_parts(tmp_path_factory.mktemp("flux"), schnell=schnell)


def pipeline_of(parts: FluxParts, dtype: torch.dtype = torch.float32) -> FluxPipeline:
    pipe = FluxPipeline(**copy.deepcopy({n: getattr(parts, n) for n in FluxParts.classes}))
    for module in (part for part in pipe.components.values() if isinstance(part, nn.Module)):
        module.eval().to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def start(height: int, width: int) -> Tensor:
    """Noise for a picture of this size."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 16, height // 2, width // 2, generator=generator)


def sampled(backbone: FluxBackbone, z: Tensor, steps: int, guidance: float) -> Tensor:
    cond, empty = backbone.embed(PROMPTS[:1]), backbone.embed([""])
    trajectory = Trajectory(backbone.path(steps), z.expand(steps + 1, *z.shape))
    conditions = Conditions(cond, cond, empty)
    return DDIM(steps=steps, guidance=guidance)(backbone, trajectory, conditions, Draws(0, ["a"]))


def of_pipeline(pipe: FluxPipeline, z: Tensor, steps: int, guidance: float, **more: Any) -> Tensor:
    height, width = 2 * z.shape[2], 2 * z.shape[3]
    tokens = pipe(
        PROMPTS[0],
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=pipe._pack_latents(z.clone(), 1, 16, *z.shape[2:]),
        output_type="latent",
        height=height,
        width=width,
        max_sequence_length=TEXT,
        **more,
    ).images
    return pipe._unpack_latents(tokens, height, width, 2)


@pytest.mark.parametrize("size", SIZES)
def test_sampling_equals_the_pipeline(parts: FluxParts, size: tuple[int, int]) -> None:
    """FLUX.1-dev has embedded guidance, FLUX.1-schnell none."""
    backbone, z = tiny_flux(copy.deepcopy(parts), size=size), start(*size)
    guidance = 3.5 if backbone.guidance_is_told else 1.0
    theirs = of_pipeline(pipeline_of(parts), z, 3, guidance)
    ours = sampled(backbone, z, 3, guidance)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - z).abs().mean() > 0.5
    assert backbone.evaluations.forward == 3  # no row with the negative condition


@pytest.mark.parametrize("size", SIZES)
def test_sampling_equals_the_pipeline_in_double_precision(
    parts: FluxParts, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers rotates and steps in single precision; here both are in double precision."""

    def apply(x: Tensor, freqs: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        cos, sin = (f[None, :, None] for f in freqs)
        return rotated(x, cos, sin)

    monkeypatch.setattr(transformer_flux, "apply_rotary_emb", apply)
    pipe = pipeline_of(parts, torch.float64)

    def step(velocity: Tensor, t: Tensor, z: Tensor, **_: Any) -> tuple[Tensor]:
        i, sigmas = pipe.scheduler.index_for_timestep(t), pipe.scheduler.sigmas.double()
        return (z + (sigmas[i + 1] - sigmas[i]) * velocity,)

    monkeypatch.setattr(pipe.scheduler, "step", step)
    backbone = tiny_flux(copy.deepcopy(parts), size=size, dtype=torch.float64)
    z = start(*size).double()
    guidance = 3.5 if backbone.guidance_is_told else 1.0
    theirs = of_pipeline(pipe, z, 3, guidance)
    ours = sampled(backbone, z, 3, guidance)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_embedded_guidance_has_an_effect(parts: FluxParts) -> None:
    """Without embedded guidance, classifier-free guidance is used."""
    z = start(32, 32)
    pipe, backbone = pipeline_of(parts), tiny_flux(copy.deepcopy(parts))
    low, high = (sampled(backbone, z, 2, scale) for scale in (1.0, 4.0))
    assert not torch.allclose(low, high, atol=1e-3)
    torch.testing.assert_close(low, of_pipeline(pipe, z, 2, 1.0), rtol=0, atol=1e-5)
    told = backbone.guidance_is_told
    more = {} if told else {"negative_prompt": "", "true_cfg_scale": 4.0}
    theirs = of_pipeline(pipe, z, 2, 4.0, **more)
    torch.testing.assert_close(high, theirs, rtol=0, atol=1e-5)


def test_a_condition_without_a_guidance_scale_gets_one(tmp_path: Path) -> None:
    backbone = tiny_flux(tiny_flux_parts(tmp_path))
    cond, z, level = backbone.embed(PROMPTS[:1]), start(32, 32), backbone.level(0.6)
    plain = backbone.predict(z, level, cond)
    torch.testing.assert_close(
        plain.clean, backbone.predict(z, level, cond.with_guidance(1.0)).clean
    )


def test_the_condition_equals_the_pipelines(parts: FluxParts) -> None:
    theirs, pooled, _ = pipeline_of(parts).encode_prompt(PROMPTS, max_sequence_length=TEXT)
    ours = tiny_flux(copy.deepcopy(parts)).embed(PROMPTS)
    torch.testing.assert_close(ours.pooled, pooled)
    torch.testing.assert_close(ours.tokens, theirs)


@pytest.mark.parametrize(("grid", "mu"), [((16, 16), 0.5), ((64, 64), 1.15), ((34, 64), 0.825)])
def test_more_image_tokens_are_shifted_more(
    tmp_path: Path, grid: tuple[int, int], mu: float
) -> None:
    backbone = tiny_flux(tiny_flux_parts(tmp_path), size=(4 * grid[0], 4 * grid[1]))
    even = 1 - torch.arange(28, dtype=torch.float64) / 28
    shift = torch.tensor(mu).double().exp()
    expected = torch.cat([shift / (shift + 1 / even - 1), torch.zeros(1)])
    found = torch.tensor([level.noise for level in backbone.path(28).levels]).double()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_times_of_schnell_are_uniform(tmp_path: Path) -> None:
    backbone = tiny_flux(tiny_flux_parts(tmp_path, schnell=True))
    levels = backbone.path(4).levels
    assert [round(level.noise, 6) for level in levels] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [round(level.time, 3) for level in levels] == [1000, 750, 500, 250, 0]


def test_packing_is_inverted_by_unpacking() -> None:
    z = torch.randn(2, 16, 6, 10)
    tokens = FluxPipeline._pack_latents(z, 2, 16, 6, 10)
    assert torch.equal(packed(z), tokens)
    assert torch.equal(unpacked(tokens, (3, 5)), z)


def test_encoding_and_decoding_equal_the_pipeline(parts: FluxParts) -> None:
    pipe, backbone = pipeline_of(parts), tiny_flux(copy.deepcopy(parts), size=(24, 40))
    image = torch.rand(2, 3, 24, 40)
    latents = backbone.encode(image)
    theirs = pipe.vae.encode(image * 2 - 1).latent_dist.mean
    torch.testing.assert_close(latents, (theirs - 0.0609) * 1.5305)
    decoded = pipe.vae.decode(latents / 1.5305 + 0.0609).sample
    torch.testing.assert_close(backbone.decode(latents), (decoded / 2 + 0.5).clamp(0, 1))


def test_words_are_in_t5_tokens(tmp_path: Path) -> None:
    """T5 has no token before the first word."""
    backbone = tiny_flux(tiny_flux_parts(tmp_path))
    image = torch.rand(3, 32, 32)
    case = Case("a", image, PROMPTS[0], "a big blue circle on a gray background")
    case = replace(case, blend_words=("red circle", "circle"))
    words = words_of(backbone, case)
    assert len(words.source) == 8 + 1  # eight words and the end
    assert (words.start, words.length) == (0, TEXT)
    assert (words.source_blend, words.target_blend) == ((2, 3), (3,))
    numbers = backbone.tokenizer(["red", "circle"], add_special_tokens=False).input_ids
    assert list(words.source_split[2:4]) == [tuple(number) for number in numbers]
    cond = backbone.embed([case.source_prompt])
    marked = edited_tokens(Conditions(cond, cond, cond, [words]))
    assert marked is not None
    assert marked[0].nonzero().flatten().tolist() == [2]
    grown = replace(case, target_prompt=PROMPTS[0] + " at night", blend_words=None)
    marked = edited_tokens(Conditions(cond, cond, cond, [words_of(backbone, grown)]))
    assert marked is not None
    assert marked[0].nonzero().flatten().tolist() == list(range(8))  # words, without the end
    assert backbone.too_long("circle " * 24)
    assert not backbone.too_long("circle " * 23)


def test_a_saved_folder_loads_the_same_model(parts: FluxParts, tmp_path: Path) -> None:
    pipeline_of(parts).save_pretrained(tmp_path)
    backbone = tiny_flux(copy.deepcopy(parts))
    guidance = "embedded" if backbone.guidance_is_told else "classifier_free"
    loaded = Flux(str(tmp_path), device="cpu", side=32, t5_tokens=TEXT, guidance=guidance).load()
    assert loaded.fingerprint == f"{backbone.fingerprint}-24-tokens"
    assert loaded.size == (32, 32)
    z = start(32, 32)
    torch.testing.assert_close(sampled(loaded, z, 2, 2.0), sampled(backbone, z, 2, 2.0))
    usual = Flux(str(tmp_path), device="cpu", guidance=guidance).load()
    assert usual.size == (256, 256)  # 128 positions of two pixels here
    assert usual.prompt_tokens == 512
    assert usual.fingerprint == backbone.fingerprint


def test_unsupported_sizes_are_refused(tmp_path: Path) -> None:
    parts = tiny_flux_parts(tmp_path)
    with pytest.raises(ConfigError, match=r"are 30 and 32; each must be a multiple of 4"):
        tiny_flux(parts, size=(30, 32))
    with pytest.raises(ConfigError, match=r"height and backbone\.width go together"):
        Flux("x", height=32)


def test_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    backbone = tiny_flux(tiny_flux_parts(tmp_path), size=(24, 40))
    with pytest.raises(BackboneError, match=r"have 40 x 40 pixels, but .* set to 24 x 40"):
        backbone.encode(torch.rand(1, 3, 40, 40))


def test_a_missing_model_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"zerocon download flux\n.*backbone=flux"):
        Flux(str(tmp_path / "nowhere"), device="cpu").load()
