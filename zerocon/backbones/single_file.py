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
    convert_ldm_clip_checkpoint,
    convert_open_clip_checkpoint,
    fetch_diffusers_config,
)
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from zerocon.core.weights import check, load_beside, load_strictly, read_tensors

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
    """All parts by name; `config`: folder of their configs, by default the hub's."""
    state = read_tensors(file, "the model")
    place: str = config or fetch_diffusers_config(state)["pretrained_model_name_or_path"]
    parts: dict[str, Any] = {}
    used: set[str] = set()
    for name, cls in classes.items():
        if issubclass(cls, nn.Module):
            parts[name], convert = _new_part(cls, place, name)
            used |= _fill(parts[name], convert, state, f"the {name}", file)
        else:
            parts[name] = load_beside(cls.from_pretrained, place, f"the {name}", subfolder=name)
    check("the model", file, unexpected=state.keys() - used, harmless=UNUSED)
    return parts


def _new_part(cls: Any, place: str, name: str) -> tuple[nn.Module, Convert]:
    """A model without weights, and the converter of the file's tensor names."""
    if not issubclass(cls, ModelMixin):
        text = cls(cls.config_class.from_pretrained(place, subfolder=name))
        return text.eval(), partial(_text_state, text)
    maker: Any = cls
    model = maker.from_config(maker.load_config(place, subfolder=name))
    convert: Any = SINGLE_FILE_LOADABLE_CLASSES[cls.__name__]["checkpoint_mapping_fn"]
    return model.eval(), lambda state: convert(checkpoint=state, config=dict(model.config))


def _fill(model: nn.Module, convert: Convert, state: State, what: str, file: Path) -> set[str]:
    """Load the model's tensors; return the names of the used tensors of the file."""
    wanted = model.state_dict().keys()
    original = _original_names(convert, state)
    converted = {k: v for k, v in convert(dict(state)).items() if k in wanted}
    load_strictly(model, converted, what, file, original=original)
    return {original[name] for name in converted}


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
    elif has("open_clip"):
        converted = convert_open_clip_checkpoint(model, state, "cond_stage_model.model.")
    elif has("open_clip_sdxl", of_this_width=True):
        converted = convert_open_clip_checkpoint(model, state, "conditioner.embedders.1.model.")
    else:
        raise ValueError(f"it has no text encoder of width {width}")
    if text is model:  # this version of transformers has no wrapper
        return {name.removeprefix("text_model."): v for name, v in converted.items()}
    return converted
