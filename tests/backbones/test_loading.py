"""No backbone runs with a tensor that is not in its files, in any format."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.modeling_utils import ModelMixin
from open_clip_layout import open_clip_layout
from original_layout import original_layout
from safetensors.torch import load_file, save_file
from test_sdxl import tiny_xl_parts
from transformers import CLIPTextModel

from tests.damage import KINDS, as_pickle, damage
from tests.marks import every
from tests.tiny import tiny_parts
from tests.tiny_transformers import tiny_flux_parts, tiny_sd3_parts
from zerocon.backbones.base import BackboneError
from zerocon.backbones.loading import ModelParts, Parts, fingerprint_of, load_parts
from zerocon.backbones.sdxl import XLParts

DIFFUSERS = "diffusion_pytorch_model"
FILES = {
    "unet": (f"{DIFFUSERS}.safetensors", "mid_block.resnets.0.conv1.weight"),
    "vae": (f"{DIFFUSERS}.safetensors", "decoder.conv_out.bias"),
    "text_encoder": ("model.safetensors", "final_layer_norm.weight"),
}


@pytest.fixture(scope="module")
def saved(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name in Parts.classes:
        getattr(parts, name).save_pretrained(folder / name)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_folder_is_loaded_as_it_was_saved(folder: Path, parts: Parts) -> None:
    assert fingerprint_of(load_parts(str(folder))) == fingerprint_of(parts)


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "make", every(2, [tiny_parts, tiny_xl_parts, tiny_sd3_parts, tiny_flux_parts])
)
def test_half_precision_is_loaded_as_it_is_stored(
    make: Callable[[Path], ModelParts], stored: torch.dtype, tmp_path: Path
) -> None:
    """Nothing takes twice its memory on the way, and no buffer is computed in half precision."""
    parts = make(tmp_path / "made")
    folder = tmp_path / "saved"
    for part in parts.modules:
        part.to(stored)
    for name in parts.classes:
        getattr(parts, name).save_pretrained(folder / name)
    found = load_parts(str(folder), kind=type(parts))
    models = [part for part in found.modules if isinstance(part, ModelMixin)]
    assert models
    for model in models:
        assert {value.dtype for value in model.parameters()} == {stored}
        own = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
        assert not own
    digest = fingerprint_of(found)
    for model in models:
        model.float()
    assert fingerprint_of(found) == digest  # as of a model that is stored in single precision


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", FILES)
def test_a_damaged_folder_is_refused(folder: Path, part: str, kind: str) -> None:
    file, name = folder / part / FILES[part][0], FILES[part][1]
    name = next(n for n in load_file(file) if n.endswith(name))  # with a prefix or without
    said = damage(file, kind, name)
    with pytest.raises(BackboneError, match=said) as caught:
        load_parts(str(folder))
    assert f"the {part}" in str(caught.value)


@pytest.mark.parametrize("left", ["nothing", "its config"])
def test_a_tokenizer_without_its_words_is_refused(folder: Path, left: str) -> None:
    """Transformers would continue with only special tokens, and all prompts would be equal."""
    for file in (folder / "tokenizer").iterdir():
        if left == "nothing" or file.name != "tokenizer_config.json":
            file.unlink()
    with pytest.raises(BackboneError, match=r"the tokenizer can't be loaded from .*vocabulary"):
        load_parts(str(folder))


@pytest.mark.parametrize("part", FILES)
def test_pickles_are_refused_with_a_message(folder: Path, part: str) -> None:
    as_pickle(folder / part / FILES[part][0])
    with pytest.raises(BackboneError, match=r"\.bin: a \.bin file is a pickle, which can run code"):
        load_parts(str(folder))


def test_a_pickle_as_a_single_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sd.ckpt").write_bytes(b"\x80\x04")
    with pytest.raises(BackboneError, match="is a pickle, which can run code"):
        load_parts(str(tmp_path / "sd.ckpt"))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("kind", every(2, [*KINDS, "nothing"]))
def test_sharded_files(folder: Path, parts: Parts, part: str, kind: str) -> None:
    (folder / part / FILES[part][0]).unlink()
    getattr(parts, part).save_pretrained(folder / part, max_shard_size="30KB")
    shards = sorted((folder / part).glob("*-of-*.safetensors"))
    assert len(shards) > 2
    if kind == "nothing":
        assert fingerprint_of(load_parts(str(folder))) == fingerprint_of(parts)
        return
    said = damage(shards[1], kind, max(load_file(shards[1])))
    with pytest.raises(BackboneError, match=said):
        load_parts(str(folder))


@pytest.fixture(scope="module")
def single(parts: Parts) -> dict[str, torch.Tensor]:
    return original_layout(parts)


IN_ONE_FILE = {
    "unet": "model.diffusion_model.middle_block.0.in_layers.2.weight",
    "vae": "first_stage_model.decoder.conv_out.bias",
    "attention of the vae": "first_stage_model.decoder.mid.attn_1.q.weight",
    "text encoder": "cond_stage_model.transformer.text_model.final_layer_norm.weight",
}


@pytest.mark.parametrize("kind", every(2, KINDS))
@pytest.mark.parametrize("part", IN_ONE_FILE)
def test_a_damaged_single_file_is_refused(
    saved: Path, single: dict[str, torch.Tensor], tmp_path: Path, part: str, kind: str
) -> None:
    save_file(single, tmp_path / "sd.safetensors")
    said = damage(tmp_path / "sd.safetensors", kind, IN_ONE_FILE[part])
    with pytest.raises(BackboneError, match=said):
        load_parts(str(tmp_path / "sd.safetensors"), config=str(saved))


@pytest.mark.parametrize(
    "name", [f"{part}.stray.weight" for part in ("model.diffusion_model.middle_block.0",
             "first_stage_model.decoder", "cond_stage_model.transformer.text_model")]
)  # fmt: skip
def test_a_tensor_that_the_converters_drop_is_named(
    saved: Path, single: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    save_file(single | {name: torch.zeros(2)}, tmp_path / "sd.safetensors")
    with pytest.raises(BackboneError, match=f"1 tensor is unexpected: {name}"):
        load_parts(str(tmp_path / "sd.safetensors"), config=str(saved))


def test_training_leftovers_in_a_single_file_are_ignored(
    saved: Path, single: dict[str, torch.Tensor], parts: Parts, tmp_path: Path
) -> None:
    left = {
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77),
        "model_ema.decay": torch.zeros(1),
        "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
        "betas": torch.zeros(1000),
        "sqrt_recipm1_alphas_cumprod": torch.zeros(1000),
    }
    save_file(single | left, tmp_path / "sd.safetensors")
    loaded = load_parts(str(tmp_path / "sd.safetensors"), config=str(saved))
    assert fingerprint_of(loaded) == fingerprint_of(parts)


def test_another_kind_of_file_is_refused(saved: Path, tmp_path: Path) -> None:
    save_file({"lora_unet.alpha": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(BackboneError, match=r"can't be loaded from .*lora\.safetensors"):
        load_parts(str(tmp_path / "lora.safetensors"), config=str(saved))


def test_stable_diffusion_2s_text_encoder_is_in_open_clips_layout(
    saved: Path, single: dict[str, torch.Tensor], parts: Parts, tmp_path: Path
) -> None:
    """Its file also has a last layer and a projection, which it does not use."""
    text = open_clip_layout(parts.text_encoder, "cond_stage_model.model.")
    unused = {n.replace("resblocks.0", "resblocks.23"): v.clone() for n, v in text.items()
              if "resblocks.0" in n}  # fmt: skip
    unused |= {
        "cond_stage_model.model.text_projection": torch.zeros(32, 32),
        "cond_stage_model.model.logit_scale": torch.zeros(()),
    }
    rest = {k: v for k, v in single.items() if not k.startswith("cond_stage_model")}
    save_file(rest | text | unused, tmp_path / "sd2.safetensors")
    loaded = load_parts(str(tmp_path / "sd2.safetensors"), config=str(saved))
    assert fingerprint_of(loaded) == fingerprint_of(parts)
    del text["cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"]
    save_file(rest | text | unused, tmp_path / "sd2.safetensors")
    with pytest.raises(BackboneError, match=r"3 tensors are missing: .*k_proj\.weight"):
        load_parts(str(tmp_path / "sd2.safetensors"), config=str(saved))


@pytest.mark.parametrize("kind", every(2, KINDS))
def test_the_second_text_encoder_of_xl(tmp_path: Path, kind: str) -> None:
    parts = tiny_xl_parts(tmp_path / "tiny")
    for name in XLParts.classes:
        getattr(parts, name).save_pretrained(tmp_path / "xl" / name)
    file = tmp_path / "xl" / "text_encoder_2" / "model.safetensors"
    said = damage(file, kind, "text_projection.weight")
    with pytest.raises(BackboneError, match=said) as caught:
        load_parts(str(tmp_path / "xl"), kind=XLParts)
    assert "the text_encoder_2" in str(caught.value)


def test_an_old_text_encoder_with_position_ids(folder: Path, parts: Parts) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    prefix = "text_model." if hasattr(parts.text_encoder, "text_model") else ""
    old = {f"{prefix}embeddings.position_ids": torch.arange(77)[None]}
    save_file(load_file(file) | old, file, metadata={"format": "pt"})
    assert isinstance(load_parts(str(folder)).text_encoder, CLIPTextModel)
