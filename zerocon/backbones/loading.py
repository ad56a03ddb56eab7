"""Load models from a folder, a single file or the hub, and compute their fingerprints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from zerocon.backbones.base import BackboneError
from zerocon.backbones.single_file import SINGLE_FILE_ERRORS, read_single_file
from zerocon.core import naming
from zerocon.core.checks import ConfigError
from zerocon.core.weights import (
    HALF,
    PICKLES,
    WeightsError,
    about_pickle,
    check_shards,
    downloads_folder,
    half_precision_in,
    is_download,
    load_beside,
    load_pretrained,
)

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
DTYPES = {**_DTYPES, **{short: _DTYPES[name] for short, name in naming.DTYPES.items()}}


@dataclass
class ModelParts:
    """The parts of a text-to-image model, by their folders' names."""

    classes: ClassVar[dict[str, Any]]
    example: ClassVar[str]  # a choice in conf/backbone, which `zerocon download` knows

    scheduler: Any

    @property
    def modules(self) -> list[Any]:
        """The parts with weights."""
        return [part for part in vars(self).values() if isinstance(part, nn.Module)]


@dataclass
class Parts(ModelParts):
    """Stable Diffusion's parts."""

    classes: ClassVar[dict[str, Any]] = {
        "vae": AutoencoderKL,
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "scheduler": DDIMScheduler,
    }
    example: ClassVar[str] = "sd15"

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer


P = TypeVar("P", bound=ModelParts)


def pick_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"backbone.device is {name!r}: {error}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"backbone.device is {name!r}, but this machine has no usable CUDA device"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"backbone.device is {name!r}, but this machine has no Apple GPU")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def load_parts(
    path: str,
    revision: str | None = None,
    config: str | None = None,
    kind: type[P] = Parts,
    variant: str | None = None,
) -> P:
    """Load from a folder, a single file or the hub's cache, depending on `path`.

    `variant`: the files with this word in their names, such as `model.fp16.safetensors`.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _from_pretrained(kind, str(place), None, variant)
    if variant is not None and place.suffix == ".safetensors":
        raise ConfigError(
            f"backbone.variant={variant} has no effect: backbone.path is a single file"
        )
    if place.suffix == ".safetensors":
        return _from_single_file(kind, place, config)
    if place.suffix in PICKLES:
        raise BackboneError(about_pickle(place, "the backbone"))
    local = is_download(path) or path.startswith((".", "/", "~"))
    if place.exists() or local or path.count("/") != 1:
        reason = "it is not a folder, a .safetensors file or a hub id"
        raise BackboneError(_missing(kind, path, reason))
    if revision is None:
        raise ConfigError(
            f"backbone.path={path} is a hub id; pin its commit with backbone.revision=<commit>"
        )
    return _from_pretrained(kind, path, revision, variant)


def _from_pretrained(kind: type[P], path: str, revision: str | None, variant: str | None) -> P:
    try:
        parts = {n: _part(cls, path, n, revision, variant) for n, cls in kind.classes.items()}
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] + _about_variants(Path(path), variant)
        raise BackboneError(_missing(kind, path, reason)) from error
    return kind(**parts)


def _about_variants(folder: Path, variant: str | None) -> str:
    """Name the precisions in the folder, if they are not the requested one."""
    weights = [file.name.split(".") for file in folder.glob("*/*model.*safetensors")]
    found = {parts[1] if len(parts) > 2 else None for parts in weights}
    if not found or variant in found:
        return ""
    said = " or ".join(sorted(f"backbone.variant={v or 'null'}" for v in found))
    return f"; the folder has weights for {said}"


def _part(cls: Any, path: str, name: str, revision: str | None, variant: str | None) -> Any:
    load: Any = cls.from_pretrained
    options: dict[str, Any] = {"subfolder": name, "revision": revision}
    if not issubclass(cls, nn.Module):
        return load_beside(load, path, f"the {name}", **options)
    if variant is not None:
        options["variant"] = variant
    if not issubclass(cls, ModelMixin):
        return load_pretrained(load, path, f"the {name}", **options)
    # As stored: otherwise diffusers makes single precision of it, in twice the memory.
    folder = _folder_of(path, name, revision)
    stored = half_precision_in(folder, variant)
    model = load_pretrained(
        load, path, f"the {name}", low_cpu_mem_usage=False, torch_dtype=stored, **options
    )
    # diffusers trusts the index of a model in several files without checking the files.
    check_shards(folder, f"the {name}", variant)
    return model


def _folder_of(path: str, name: str, revision: str | None) -> Path:
    """The folder of a part's files, which for hub models is in the cache."""
    if revision is None:
        return Path(path) / name
    config = try_to_load_from_cache(path, f"{name}/config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else Path(path) / name


def _from_single_file(kind: type[P], file: Path, config: str | None) -> P:
    if not file.is_file():
        raise BackboneError(_missing(kind, str(file), "there is no such file"))
    try:
        return kind(**read_single_file(file, kind.classes, config))
    except SINGLE_FILE_ERRORS as error:
        lacks = f"it has no tensor {error}" if isinstance(error, KeyError) else str(error)
        reason = lacks.splitlines()[0] if lacks else type(error).__name__
        if config is None and not isinstance(error, WeightsError):
            reason += (
                "; a single file has only weights: without a network, set backbone.config to a "
                "folder with the model's config files and tokenizer"
            )
        raise BackboneError(_missing(kind, str(file), reason)) from error


def _missing(kind: type[ModelParts], path: str, reason: str) -> str:
    name = kind.example
    return (
        f"the backbone's weights can't be loaded from {path!r}: {reason}\n"
        "Nothing is downloaded by itself. On a machine with a network\n"
        f"  zerocon download {name}\n"
        f"fetches {name} in the diffusers layout (folders {', '.join(kind.classes)}) to "
        f"{downloads_folder() / name}, where backbone={name} looks; backbone.path=… points "
        "elsewhere. Without any download, backbone=shapes works."
    )


def saving_memory(vae: Any, digest: str, *, slicing: bool, tiling: bool) -> str:
    """Let the autoencoder work in slices or tiles; return the digest of what then computes.

    Slices are the batch's pictures one by one. Tiles are blended, so the numbers differ.
    """
    if slicing:
        vae.enable_slicing()
    if tiling:
        vae.enable_tiling()
    return f"{digest}-tiled" if tiling else digest


def fingerprint_of(parts: ModelParts) -> str:
    """A digest of all weights and the scheduler, independent of their location.

    Values of diffusers' models count in single precision, whatever they are stored in.
    """
    said = {k: v for k, v in dict(parts.scheduler.config).items() if not k.startswith("_")}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for module in parts.modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            single = isinstance(module, ModelMixin) and value.dtype in HALF
            counts = value.float() if single else value
            digest.update(counts.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def frozen(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    return nn.Module.to(module, device, dtype).requires_grad_(False).eval()


def vae_scale(parts: ModelParts) -> int:
    """Pixels on a side of a latent's position."""
    vae: Any = vars(parts)["vae"]
    return 2 ** (len(vae.config["block_out_channels"]) - 1)
