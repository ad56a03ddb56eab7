"""Models in a single file with the tensor names of the original Stable Diffusion checkpoints.

diffusers' converters rename the tensors, but silently ignore unknown and missing ones. Both are
checked here: every tensor of the models must be in the file, and every tensor of the file must be
used or be listed as harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES
from diffusers.loaders.single_file_utils import (
    CHECKPOINT_KEY_NAMES,
    LDM_VAE_KEYS,
    convert_ldm_clip_checkpoint,
    convert_open_clip_checkpoint,
    fetch_diffusers_config,
)
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from zerocon.backbones.flux_file import flux_state
from zerocon.core.weights import check, load_beside, load_pretrained, load_strictly, read_tensors

State = Mapping[str, Tensor]
Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]

# Errors that converters raise for damaged files or other kinds of models.
SINGLE_FILE_ERRORS = (OSError, ValueError, KeyError, IndexError, RuntimeError, AttributeError)

# Tensors from training in published files that do not affect results.
UNUSED = (
    "model_ema.*",  # the U-Net's weights, averaged over training
    "first_stage_model.loss.*",  # discriminator from the autoencoder's training
    "betas",
    "alphas_cumprod*",
    "sqrt_*",
    "log_one_minus_alphas_cumprod",
    "posterior_*",
    "logvar",
    "lvlb_weights",
    "denoiser.sigmas",
    "cond_stage_model.model.transformer.resblocks.23.*",  # not used by Stable Diffusion 2
    "cond_stage_model.model.text_projection",
    "*.logit_scale",
    "*.attn_mask",
)


def read_single_file(file: Path, classes: Mapping[str, Any], config: str | None) -> dict[str, Any]:
    """All parts by name; `config`: folder of their configs, by default in the hub's cache."""
    state = read_tensors(file, "the model")
    place: str = config or fetch_diffusers_config(state)["pretrained_model_name_or_path"]
    parts: dict[str, Any] = {}
    used: set[str] = set()
    absent = _absent(classes, state, config)
    for name, cls in classes.items():
        if name in absent:
            parts[name] = _from_folder(cls, place, name)
        elif issubclass(cls, nn.Module):
            parts[name], convert = _new_part(cls, place, name)
            used |= _fill(parts[name], convert, state, f"the {name}", file)
        else:
            parts[name] = load_beside(cls.from_pretrained, place, f"the {name}", subfolder=name)
    left_out = () if "text_encoder_3" in classes else ("text_encoders.t5xxl.*",)
    harmless = (*UNUSED, *(left_out if "transformer" in classes else ()))
    check("the model", file, unexpected=state.keys() - used, harmless=harmless)
    return parts


# What names a file of Stable Diffusion 3 or FLUX must have for a part of the model to be in it.
# Their authors' files hold the transformer, and some or none of the others.
_TEXT = "text_encoders.{}.transformer."
_POSITIONS = "text_model.embeddings.position_embedding.weight"
_MARKS: Mapping[str, tuple[str, ...]] = {
    "AutoencoderKL": tuple(LDM_VAE_KEYS),
    "CLIPTextModel": (_TEXT.format("clip_l"),),
    "CLIPTextModelWithProjection": (_TEXT.format("clip_l"), _TEXT.format("clip_g")),
    "T5EncoderModel": (_TEXT.format("t5xxl"),),
}


def _absent(classes: Mapping[str, Any], state: State, config: str | None) -> set[str]:
    """The parts that a transformer's file does not hold, so that they come from `config`."""
    if "transformer" not in classes:
        return set()
    absent = {
        name
        for name, cls in classes.items()
        if cls.__name__ in _MARKS and not any(k.startswith(_MARKS[cls.__name__]) for k in state)
    }
    if absent and (config is None or not Path(config).is_dir()):
        raise ValueError(
            f"it does not hold the {', '.join(sorted(absent))}; point backbone.config at a folder "
            "in the diffusers layout that has them, with their weights"
        )
    return absent


def _from_folder(cls: Any, folder: str, name: str) -> Any:
    options: dict[str, Any] = {"subfolder": name}
    if issubclass(cls, ModelMixin):
        options["low_cpu_mem_usage"] = False
    return load_pretrained(cls.from_pretrained, folder, f"the {name}", **options)


def _new_part(cls: Any, place: str, name: str) -> tuple[nn.Module, Convert]:
    """A model without weights, and the converter of the file's tensor names."""
    if not issubclass(cls, ModelMixin):
        text = cls(cls.config_class.from_pretrained(place, subfolder=name, local_files_only=True))
        convert_text: Any = _t5_state if cls.__name__ == "T5EncoderModel" else _text_state
        return text.eval(), partial(convert_text, text)
    maker: Any = cls
    model = maker.from_config(maker.load_config(place, subfolder=name, local_files_only=True))
    if cls.__name__ == "FluxTransformer2DModel":
        return model.eval(), flux_state
    convert: Any = SINGLE_FILE_LOADABLE_CLASSES[cls.__name__]["checkpoint_mapping_fn"]
    return model.eval(), lambda state: convert(checkpoint=state, config=dict(model.config))


def _fill(model: nn.Module, convert: Convert, state: State, what: str, file: Path) -> set[str]:
    """Load the model's tensors; return the names of the used tensors of the file."""
    wanted = model.state_dict().keys()
    original = _original_names(convert, state)
    converted = {k: v for k, v in convert(dict(state)).items() if k in wanted}
    if "text_projection.weight" in wanted and _TEXT.format("clip_l") in original.get(
        _POSITIONS, ""
    ):
        # Stable Diffusion 3's first text encoder has none: it is the identity.
        whole = torch.eye(*model.state_dict()["text_projection.weight"].shape)
        converted.setdefault("text_projection.weight", whole)
    load_strictly(model, converted, what, file, original=original)
    return {original[name] for name in converted if name in original}


def _original_names(convert: Convert, state: State) -> dict[str, str]:
    """{converted name: name in the file}, by converting tensors that contain their index."""
    names = list(state)
    marks = {n: torch.tensor(float(i)).expand(state[n].shape) for i, n in enumerate(names)}
    return {name: names[int(v[(0,) * v.ndim])] for name, v in convert(marks).items() if v.numel()}


def _text_state(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text encoder's tensors, from any of the known layouts."""
    text = getattr(model, "text_model", model)
    width = text.embeddings.position_embedding.weight.shape[-1]

    def has(key: str, *, of_this_width: bool = False) -> bool:
        found = state.get(str(CHECKPOINT_KEY_NAMES[key]))
        return found is not None and (not of_this_width or found.shape[-1] == width)

    if has("clip") or has("clip_sdxl", of_this_width=True):
        converted = convert_ldm_clip_checkpoint(state)
    elif has("clip_sd3", of_this_width=True):
        converted = convert_ldm_clip_checkpoint(state, _TEXT.format("clip_l"))
    elif has("open_clip_sd3", of_this_width=True):
        converted = convert_ldm_clip_checkpoint(state, _TEXT.format("clip_g"))
    elif has("open_clip"):
        converted = convert_open_clip_checkpoint(model, state, "cond_stage_model.model.")
    elif has("open_clip_sdxl", of_this_width=True):
        converted = convert_open_clip_checkpoint(model, state, "conditioner.embedders.1.model.")
    else:
        raise ValueError(f"it has no text encoder of width {width}")
    if text is model:  # this version of transformers has no wrapper
        return {name.removeprefix("text_model."): v for name, v in converted.items()}
    return converted


def _t5_state(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """T5's tensors. Its token embedding has two names and stands in the file once."""
    prefix = _TEXT.format("t5xxl")
    found = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    for name in model.state_dict().keys() & {"encoder.embed_tokens.weight"}:
        if "shared.weight" in found:
            found.setdefault(name, found["shared.weight"])
    return found
