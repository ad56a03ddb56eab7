"""Half-precision files, autoencoders that save memory, and names of precisions and devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.loading import Parts, pick_device, pick_dtype
from zerocon.backbones.stable_diffusion import StableDiffusion
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError

PROMPTS = ["a red circle"]
RUN = ["backbone=sd15", "backbone.path=x", "dataset=pie_bench", "dataset.root=x", "metrics=sd",
       "method=pnp", "direction=word_swap"]  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return tiny_parts(tmp_path_factory.mktemp("vocab"))


def saved(parts: Parts, folder: Path, variant: str | None) -> str:
    for name in ("vae", "unet", "text_encoder"):
        model = getattr(parts, name)
        kept = {key: value.clone() for key, value in model.state_dict().items()}
        (model.half() if variant else model).save_pretrained(folder / name, variant=variant)
        model.float().load_state_dict(kept)
    parts.tokenizer.save_pretrained(folder / "tokenizer")
    parts.scheduler.save_pretrained(folder / "scheduler")
    return str(folder)


def test_half_precision_files_are_read_on_request(parts: Parts, tmp_path: Path) -> None:
    whole = StableDiffusion(saved(parts, tmp_path / "a", None), device="cpu").load()
    path = saved(parts, tmp_path / "b", "fp16")
    half = StableDiffusion(path, device="cpu", variant="fp16").load()
    assert half.dtype == torch.float32
    assert half.fingerprint != whole.fingerprint
    close = {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(half.embed(PROMPTS).tokens, whole.embed(PROMPTS).tokens, **close)
    with pytest.raises(BackboneError, match=r"the folder has weights for backbone\.variant=fp16"):
        StableDiffusion(path, device="cpu").load()


def test_a_variant_of_a_single_file_has_no_effect(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no effect"):
        StableDiffusion(str(tmp_path / "a.safetensors"), device="cpu", variant="fp16").load()


def test_slices_change_nothing_and_tiles_the_fingerprint(parts: Parts, tmp_path: Path) -> None:
    path = saved(parts, tmp_path, None)
    plain = StableDiffusion(path, device="cpu").load()
    sliced = StableDiffusion(path, device="cpu", vae_slicing=True).load()
    tiled = StableDiffusion(path, device="cpu", vae_tiling=True).load()
    assert sliced.vae.use_slicing
    assert tiled.vae.use_tiling
    assert sliced.fingerprint == plain.fingerprint != tiled.fingerprint
    pictures = torch.rand(3, 3, *plain.size)
    torch.testing.assert_close(sliced.encode(pictures), plain.encode(pictures))
    z = plain.encode(pictures)
    torch.testing.assert_close(sliced.decode(z), plain.decode(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("short", "long"), [("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32")]
)
def test_short_names_of_precisions_are_the_same_run(short: str, long: str) -> None:
    one, other = (compose_settings([*RUN, f"backbone.dtype={name}"]) for name in (short, long))
    assert one.directory == other.directory
    assert one.config["backbone"]["dtype"] == long
    cpu = torch.device("cpu")
    assert pick_dtype(short, cpu) == pick_dtype(long, cpu)


def test_slices_are_no_part_of_the_name_and_tiles_are() -> None:
    plain = compose_settings(RUN).directory
    assert compose_settings([*RUN, "backbone.vae_slicing=true"]).directory == plain
    assert compose_settings([*RUN, "backbone.vae_tiling=true"]).directory != plain


def test_an_apple_gpu_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps").type == "mps"
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no Apple GPU"):
        pick_device("mps")
