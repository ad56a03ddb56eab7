"""Loading from a folder, a file or the hub, and the interface of backbones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, LCMScheduler, StableDiffusionPipeline
from original_layout import original_layout
from safetensors.torch import save_file

from tests.tiny import eps, tiny_backbone, tiny_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.loading import Parts
from zerocon.backbones.shapes import Shapes
from zerocon.backbones.stable_diffusion import StableDiffusion, StableDiffusionBackbone
from zerocon.core.checks import ConfigError

PROMPTS = ["a big red circle on a gray background", "a small blue house at the beach"]


def pipeline(parts: Parts) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=parts.vae,
        unet=parts.unet,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "tiny-sd"
    pipeline(parts).save_pretrained(path)
    return path


def test_a_saved_folder_loads_the_same_model(
    folder: Path, backbone: StableDiffusionBackbone
) -> None:
    loaded = StableDiffusion(str(folder), device="cpu").load()
    assert loaded.fingerprint == backbone.fingerprint
    z, cond = torch.randn(2, 4, 16, 16), loaded.embed(PROMPTS)
    torch.testing.assert_close(eps(loaded, z, 500, cond), eps(backbone, z, 500, cond))


def test_other_weights_have_another_fingerprint(
    tmp_path: Path, backbone: StableDiffusionBackbone
) -> None:
    assert tiny_backbone(tiny_parts(tmp_path, seed=1)).fingerprint != backbone.fingerprint


def test_a_missing_model_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"zerocon download sd15\n.*backbone\.path="):
        StableDiffusion(str(tmp_path / "nowhere"), device="cpu").load()
    with pytest.raises(BackboneError, match="no such file"):
        StableDiffusion(str(tmp_path / "sd.safetensors"), device="cpu").load()


def test_an_incomplete_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    with pytest.raises(BackboneError, match="can't be loaded from"):
        StableDiffusion(str(tmp_path), device="cpu").load()


def test_a_hub_id_needs_its_commit() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.revision"):
        StableDiffusion("some/model", device="cpu").load()


def test_a_hub_model_that_is_not_here_says_what_to_download() -> None:
    with pytest.raises(BackboneError, match="hf download"):
        StableDiffusion("some/model", revision="0" * 40, device="cpu").load()


def test_a_single_file_gives_the_same_model(
    folder: Path, parts: Parts, backbone: StableDiffusionBackbone, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.safetensors"
    save_file(original_layout(parts), file)
    loaded = StableDiffusion(str(file), config=str(folder), device="cpu").load()
    z, cond = torch.randn(2, 4, 16, 16), loaded.embed(PROMPTS)
    torch.testing.assert_close(cond.tokens, backbone.embed(PROMPTS).tokens)
    torch.testing.assert_close(eps(loaded, z, 500, cond), eps(backbone, z, 500, cond))
    torch.testing.assert_close(loaded.decode(z), backbone.decode(z))
    assert loaded.path(50) == backbone.path(50)


def test_a_single_file_without_configs_says_what_is_missing(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "tiny.safetensors"
    save_file(original_layout(parts), file)
    with pytest.raises(BackboneError, match=r"backbone\.config"):
        StableDiffusion(str(file), device="cpu").load()


def test_the_size_can_be_set(folder: Path) -> None:
    loaded = StableDiffusion(str(folder), device="cpu", side=48).load()
    assert (loaded.size, loaded.taps.sites[0].grid) == ((48, 48), (24, 24))
    latents = loaded.encode(torch.rand(1, 3, 48, 48))
    assert eps(loaded, latents, 10, loaded.embed(PROMPTS[:1])).shape == (1, 4, 24, 24)
    with pytest.raises(ConfigError, match=r"backbone\.side is 50; it must be a multiple of 16"):
        StableDiffusion(str(folder), device="cpu", side=50).load()


def test_pictures_need_not_be_square(folder: Path) -> None:
    loaded = StableDiffusion(str(folder), device="cpu", height=32, width=48).load()
    assert loaded.size == (32, 48)
    grids = {site.scale: site.grid for site in loaded.taps.sites}
    assert grids == {1: (16, 24), 2: (8, 12), 4: (4, 6), 8: (2, 3)}
    latents = loaded.encode(torch.rand(1, 3, 32, 48))
    assert latents.shape == (1, 4, 16, 24)
    assert loaded.decode(latents).shape == (1, 3, 32, 48)
    with pytest.raises(ConfigError, match=r"are 32 and 50; each must be a multiple of 16"):
        StableDiffusion(str(folder), device="cpu", height=32, width=50).load()
    with pytest.raises(ConfigError, match=r"not both"):
        StableDiffusion("x", side=32, height=32, width=32)
    with pytest.raises(ConfigError, match=r"backbone\.width is 4; it must be at least 8"):
        StableDiffusion("x", height=32, width=4)


@pytest.mark.parametrize(
    ("field", "value"), [("dtype", "float8"), ("device", "tpu-of-mine"), ("device", "cuda:99")]
)
def test_wrong_settings_are_named(folder: Path, field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"backbone.{field} is '{value}'"):
        StableDiffusion(str(folder), **{field: value}).load()


def test_v_prediction_is_converted_to_noise(tmp_path: Path, parts: Parts) -> None:
    v_model = tiny_backbone(tiny_parts(tmp_path, "v_prediction"))
    plain = tiny_backbone(tiny_parts(tmp_path, "epsilon"))
    z, cond = torch.randn(1, 4, 16, 16), plain.embed(PROMPTS[:1])
    alpha = float(parts.scheduler.alphas_cumprod[500])
    expected = alpha**0.5 * eps(plain, z, 500, cond) + (1 - alpha) ** 0.5 * z
    torch.testing.assert_close(eps(v_model, z, 500, cond), expected)


def test_no_weight_requires_a_gradient(backbone: StableDiffusionBackbone) -> None:
    for module in (backbone.vae, backbone.unet, backbone.text_encoder):
        assert not any(p.requires_grad for p in module.parameters())


def test_rows_are_independent(backbone: StableDiffusionBackbone) -> None:
    images = torch.rand(3, 3, 32, 32)
    together = backbone.encode(images)
    alone = torch.cat([backbone.encode(i[None]) for i in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_too_long_prompts_are_detected(backbone: StableDiffusionBackbone) -> None:
    assert backbone.too_long("a red circle " * 40)
    assert not backbone.too_long(PROMPTS[0])
    assert backbone.embed(["a red circle " * 40]).tokens.shape[1] == 77


def test_plain_diffusers_loads_the_packaged_weights() -> None:
    ours = Shapes(device="cpu", dtype="float32").load()
    pipe = StableDiffusionPipeline.from_pretrained(
        str(Path(__file__).parents[2] / "zerocon" / "shapes" / "weights" / "generator")
    )
    assert pipe.unet.dtype == pipe.text_encoder.dtype == torch.float32
    z, cond = torch.randn(2, 4, 16, 16), ours.embed(PROMPTS)
    theirs = pipe.unet(z, 500, encoder_hidden_states=cond.tokens).sample
    torch.testing.assert_close(eps(ours, z, 500, cond), theirs)


def test_the_shapes_unet_has_stable_diffusions_topology() -> None:
    unet = Shapes(device="cpu").load().unet
    blocks = [len(b.resnets) for b in [*unet.down_blocks, *unet.up_blocks]]
    assert blocks == [2, 2, 2, 2, 3, 3, 3, 3]
    for which in ("attn1", "attn2"):
        names = [n for n, _ in unet.named_modules() if n.endswith(f"transformer_blocks.0.{which}")]
        assert len(names) == 16
        assert sum(n.startswith("down") for n in names) == 6
        assert sum(n.startswith("mid") for n in names) == 1


def test_distilled_models_use_their_schedulers_times(folder: Path, tmp_path: Path) -> None:
    """Saved with its own scheduler's class, as SDXL-Turbo and latent consistency models are."""
    usual = StableDiffusion(str(folder), device="cpu").load()
    own = {
        "trailing": EulerAncestralDiscreteScheduler(timestep_spacing="trailing", steps_offset=1),
        "consistency": LCMScheduler(original_inference_steps=50, steps_offset=1),
    }
    for name, scheduler in own.items():
        copied = Path(shutil.copytree(folder, tmp_path / name))
        scheduler.save_pretrained(copied / "scheduler")
        loaded = StableDiffusion(str(copied), device="cpu").load()
        for steps in (1, 4, 5, 12):
            scheduler.set_timesteps(steps)
            times = [level.time for level in loaded.path(steps).levels[:-1]]
            assert times == scheduler.timesteps.tolist()
            assert times != [level.time for level in usual.path(steps).levels[:-1]]
        assert loaded.fingerprint != usual.fingerprint


def test_an_unknown_spacing_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "copy"))
    file = copied / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text()) | {"timestep_spacing": "random"}
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="timestep_spacing is 'random'; it must be one of: lead"):
        StableDiffusion(str(copied), device="cpu").load()
