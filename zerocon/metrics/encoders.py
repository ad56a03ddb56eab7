"""The networks that judge: CLIPs and ViTs, from the package, a folder, the hub or the caller.

Each is loaded once and shared: metrics that ask one for the same batch get one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor, ViTConfig, ViTModel

from zerocon.core.checks import ConfigError
from zerocon.core.taps import PassEnded
from zerocon.metrics.base import Pictures, check_range
from zerocon.shapes import evaluators
from zerocon.shapes.packaged import file_fingerprint, module_fingerprint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
WEIGHT_FILES = (".pth", ".pt", ".safetensors")
HEAD_WIDTH = 64  # of every DINO ViT; a checkpoint does not say it

Model = TypeVar("Model")
Shown = Literal["source", "edited", "region"]  # the region: all else is black


class ClipEncoder(Protocol):
    """Pictures (0..1) and sentences into one space; too long a sentence keeps its end token."""

    @property
    def fingerprint(self) -> str: ...
    def images(self, pictures: Tensor) -> Tensor: ...
    def texts(self, sentences: Sequence[str]) -> Tensor: ...
    def too_long(self, sentence: str) -> bool: ...


class PublishedClip:
    """A CLIP in transformers' layout: a local folder, or a hub id at a fixed revision."""

    def __init__(self, path: str, revision: str | None = None) -> None:
        local = is_local(path, revision, "CLIP")
        version = revision or "main"  # a local folder has none

        def load() -> CLIPModel:
            return CLIPModel.from_pretrained(path, revision=version, dtype=torch.float32)

        self.model = loaded(load, "CLIP", path).eval().requires_grad_(False)
        # Typed Any: what a processor takes and gives is known at run time only.
        self.processor: Any = CLIPProcessor.from_pretrained(path, revision=version)
        self.context = len(self.model.text_model.embeddings.position_embedding.weight)
        self.fingerprint = evaluators.fingerprint(Path(path)) if local else f"{path}@{revision}"

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """[picture, width], of what 256 levels keep of the pictures."""
        check_range("the pictures for CLIP", pictures)
        levels = [picture.cpu() for picture in as_uint8(pictures)]
        pixels = self.processor(images=levels, return_tensors="pt").pixel_values
        model = on(self.model, pictures.device)
        return _features(model.get_image_features(pixel_values=pixels.to(pictures.device)))

    @torch.no_grad()
    def texts(self, sentences: Sequence[str]) -> Tensor:
        """[sentence, width]"""
        tokens = self.processor.tokenizer(
            list(sentences),
            padding=True,
            truncation=True,
            max_length=self.context,
            return_tensors="pt",
        )
        return _features(self.model.get_text_features(**tokens.to(self.model.device)))

    def too_long(self, sentence: str) -> bool:
        return len(self.processor.tokenizer(sentence).input_ids) > self.context


@cache
def load_clip(path: str | None = None, revision: str | None = None) -> ClipEncoder:
    """Without `path` the shapes world's own."""
    return evaluators.load_clip() if path is None else PublishedClip(path, revision)


def as_uint8(pictures: Tensor) -> Tensor:
    """What a saved picture holds: CLIP scores are of files, so of 256 levels."""
    return (pictures * 255).round().to(torch.uint8)


def image_features(encoder: ClipEncoder, pictures: Pictures, shown: Shown) -> Tensor:
    """[case, width]"""
    return pictures.once(encoder, shown, lambda: encoder.images(_shown(pictures, shown)))


def see(encoder: ClipEncoder, pictures: Pictures, shown: Iterable[Shown]) -> None:
    """One pass over all that is going to be asked for; two of half the size take longer."""
    new: list[Shown] = [s for s in dict.fromkeys(shown) if not pictures.knows(encoder, s)]
    if not new:
        return
    features = encoder.images(torch.cat([_shown(pictures, s) for s in new]))
    for what, part in zip(new, features.chunk(len(new)), strict=True):
        pictures.keep(encoder, what, part)


def text_features(
    encoder: ClipEncoder, pictures: Pictures, which: Literal["source", "target"]
) -> Tensor:
    """Of the cases' source or target prompts, [case, width]."""
    prompts = [getattr(case, f"{which}_prompt") for case in pictures.cases]
    place = pictures.edited.device
    return pictures.once(encoder, f"{which} prompt", lambda: encoder.texts(prompts).to(place))


def _shown(pictures: Pictures, shown: Shown) -> Tensor:
    if shown == "region":
        return pictures.edited * pictures.region
    return pictures.source if shown == "source" else pictures.edited


def _features(output: Any) -> Tensor:
    """transformers 5 wraps them, transformers 4 does not."""
    return getattr(output, "pooler_output", output)


@dataclass(frozen=True)
class Seen:
    """What a ViT makes of pictures."""

    keys: Tensor  # the last layer's, heads side by side, class token first, [case, position, width]
    finish: Callable[[], Tensor]

    @cached_property
    def token(self) -> Tensor:
        """The class token at the end, [case, width]; computed when first asked for."""
        return self.finish()


@dataclass(frozen=True, eq=False)
class VitEncoder:
    """A ViT and how its pictures are prepared."""

    vit: ViTModel
    fingerprint: str
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __call__(self, pictures: Tensor, *, levels: bool = False) -> Seen:
        """Of pictures in 0..1; `levels`: fed as 0..255, which no ViT was trained for."""
        check_range("the pictures for the ViT", pictures)
        mean, std = (
            torch.tensor(tuple(v), device=pictures.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        pixels = resized(pictures.float(), cast("int", self.vit.config.image_size))
        return last_layer(
            on(self.vit, pixels.device), ((255 if levels else 1) * pixels - mean) / std
        )

    def seen(self, pictures: Pictures, shown: Shown, *, levels: bool = False) -> Seen:
        """Of one batch; computed once."""
        what = f"{shown} {levels}"
        return pictures.once(self, what, lambda: self(_shown(pictures, shown), levels=levels))


@torch.no_grad()
def last_layer(vit: ViTModel, pixels: Tensor) -> Seen:
    """Of pixels as the ViT wants them; of its last layer only what is asked for is computed."""
    sites = [name for name, _ in vit.named_modules() if name.endswith((".k_proj", ".key"))]
    if not sites:
        raise ValueError(f"{type(vit).__name__} has no layer named k_proj or key to read keys at")
    layer: Any = vit.get_submodule(sites[-1].partition(".attention.")[0])
    entered: list[tuple[Any, dict[str, Any]]] = []

    def enter(_module: nn.Module, args: Any, named: dict[str, Any]) -> None:
        entered.append((args, named))
        raise PassEnded

    handle = layer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        with suppress(PassEnded):
            vit(pixel_values=pixels)
    finally:
        handle.remove()
    args, named = entered[0]

    @torch.no_grad()
    def finish() -> Tensor:
        states = layer(*args, **named)
        states = states[0] if isinstance(states, tuple) else states  # transformers 4 wraps them
        return vit.layernorm(states)[:, 0]

    return Seen(vit.get_submodule(sites[-1])(layer.layernorm_before(args[0])), finish)


def resized(pictures: Tensor, side: int) -> Tensor:
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)


@cache
def load_vit(path: str | None = None, revision: str | None = None) -> VitEncoder:
    """Without `path` the shapes world's own.

    `path` is a ViT in transformers' layout (a folder, or a hub id at a fixed `revision`), or a
    checkpoint file with DINO's own names, such as dino_vitbase8_pretrain.pth (timm's are the same).
    """
    if path is None:
        digest = evaluators.fingerprint(evaluators.STRUCTURE_FOLDER)
        return VitEncoder(evaluators.load_structure(), digest, HALF, HALF)
    if Path(path).is_file():
        vit = vit_from_dino(evaluators.read_state(Path(path)), path)
        return VitEncoder(vit, file_fingerprint(Path(path)))
    if is_local(path, revision, "ViT"):
        return VitEncoder(evaluators.load_structure(Path(path)), evaluators.fingerprint(Path(path)))

    def load() -> ViTModel:
        return ViTModel.from_pretrained(
            path, revision=str(revision), dtype=torch.float32, add_pooling_layer=False
        )

    vit = loaded(load, "ViT", path).eval().requires_grad_(False)
    return VitEncoder(vit, f"{path}@{revision}")


def given_vit(
    vit: ViTModel, mean: Sequence[float] | None, std: Sequence[float] | None
) -> VitEncoder:
    """The caller's own; without `mean` and `std` it takes pictures in -1..1."""
    return VitEncoder(vit, module_fingerprint(vit), mean or HALF, std or HALF)


def vit_from_dino(state: dict[str, Tensor], name: str) -> ViTModel:
    """transformers' ViT with the weights of a checkpoint that has DINO's own names."""
    if not {"pos_embed", "patch_embed.proj.weight", "norm.weight"} <= state.keys():
        raise ConfigError(
            f"{name} is not a DINO ViT's backbone: it has no pos_embed, patch_embed.proj.weight "
            f"and norm.weight; it begins with {', '.join(list(state)[:3])}"
        )
    vit = ViTModel(_dino_config(state), add_pooling_layer=False)
    theirs = _with_heads_split(state)
    names = {ours: _dino_name(ours) for ours in vit.state_dict()}
    missing = [n for n in names.values() if n not in theirs]
    if missing:
        raise ConfigError(f"{name} lacks {', '.join(missing[:3])}: it can't be read as a DINO ViT")
    vit.load_state_dict({ours: theirs[theirs_name] for ours, theirs_name in names.items()})
    return vit.eval().requires_grad_(False)


def _dino_config(state: dict[str, Tensor]) -> ViTConfig:
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    grid = math.isqrt(state["pos_embed"].shape[1] - 1)
    return ViTConfig(
        hidden_size=width,
        intermediate_size=len(state["blocks.0.mlp.fc1.bias"]),
        num_hidden_layers=len({n.split(".")[1] for n in state if n.startswith("blocks.")}),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=grid * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )


def _with_heads_split(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DINO keeps query, key and value in one matrix."""
    split = dict(state)
    for name in [n for n in state if ".attn.qkv." in n]:
        parts = split.pop(name).chunk(3)
        split |= {name.replace("qkv", x): p for x, p in zip("qkv", parts, strict=True)}
    return split


# Parts of transformers' names, of version 5 and (where they differ) of version 4.
_DINO_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer.": "blocks.",
    "layers.": "blocks.",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "attention.q_proj": "attn.q",
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm": "norm",
}


def _dino_name(name: str) -> str:
    for ours, theirs in _DINO_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def is_local(path: str, revision: str | None, kind: str) -> bool:
    """Is it a folder here? A hub id must come with its revision."""
    if Path(path).is_dir():
        return True
    if Path(path).suffix in WEIGHT_FILES:
        raise ConfigError(f"the {kind}'s weights are not at {path!r}: there is no such file")
    if revision is None:
        raise ConfigError(
            f"{path!r} is not a folder here; a model from the hub needs a `revision`, so that "
            "the numbers stay the same when its repository changes"
        )
    return False


def loaded(load: Callable[[], Model], kind: str, path: str) -> Model:
    try:
        return load()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the {kind} {path!r} can't be loaded: {error}") from error


def on(module: Model, device: torch.device) -> Model:
    """The module, on the device of what it is asked to judge."""
    cast("nn.Module", module).to(device)
    return module
