"""CLIPs and ViTs that judge, from the package, a folder, the hub or the caller.

Each is loaded once and shared: metrics that need its features of a batch share one pass.
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

from zerocon.core.cases import World
from zerocon.core.checks import ConfigError
from zerocon.core.weights import (
    PICKLES,
    WeightsError,
    about_pickle,
    check,
    file_fingerprint,
    folder_fingerprint,
    is_download,
    load_beside,
    load_pretrained,
    load_strictly,
    module_fingerprint,
    read_published_pickle,
    read_tensors,
)
from zerocon.metrics import packaged
from zerocon.metrics.base import Judge, Pictures, check_range

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
HEAD_WIDTH = 64  # of all DINO ViTs; not in the checkpoints
SIZES = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1280: "H"}  # width -> usual name
# The settings that say where the judges' weights are.
JUDGES = {"CLIP": "metrics.clip.path", "ViT": "metrics.structure.path"}
FETCH_JUDGES = (
    "Nothing is downloaded by itself: `zerocon download judges` fetches the published judges, and "
    "metrics=sd uses them"
)
# Ignored parts of a DINO checkpoint: training heads, and timm's classifier.
DINO_HEADS = ("head.*", "fc_norm.*")

Model = TypeVar("Model")
Shown = Literal["source", "edited", "region"]  # region: with everything else black


class ClipEncoder(Judge, Protocol):
    """Encodes pictures (0..1) and sentences into one space.

    Sentences that are too long are cut, but keep the end token unless `cut_end`.
    """

    def images(self, pictures: Tensor) -> Tensor: ...
    def texts(self, sentences: Sequence[str], *, cut_end: bool = False) -> Tensor: ...
    def too_long(self, sentence: str) -> bool: ...


class PublishedClip:
    """A CLIP in transformers' layout: a local folder, or a hub id at a fixed revision."""

    def __init__(self, path: str, revision: str | None = None) -> None:
        local = is_local(path, revision, "CLIP")
        version = revision or "main"  # a local folder has no revision
        model: CLIPModel = load_pretrained(
            CLIPModel.from_pretrained, path, "the CLIP", revision=version, dtype=torch.float32
        )
        self.model = model.eval().requires_grad_(False)
        # Typed Any: a processor's arguments and results are only known at run time.
        self.processor: Any = load_beside(
            CLIPProcessor.from_pretrained, path, "the CLIP's processor", revision=version
        )
        self.context = len(self.model.text_model.embeddings.position_embedding.weight)
        self.fingerprint = folder_fingerprint(Path(path)) if local else f"{path}@{revision}"
        self.title = f"{_vit_name(model.config.vision_config, 'CLIP ViT')}, {_place(path)}"

    @torch.no_grad()
    def images(self, pictures: Tensor) -> Tensor:
        """Features of the pictures in 256 levels, [picture, width]."""
        check_range("the pictures for CLIP", pictures)
        levels = [picture.cpu() for picture in as_uint8(pictures)]
        pixels = self.processor(images=levels, return_tensors="pt").pixel_values
        model = on(self.model, pictures.device)
        return _features(model.get_image_features(pixel_values=pixels.to(pictures.device)))

    @torch.no_grad()
    def texts(self, sentences: Sequence[str], *, cut_end: bool = False) -> Tensor:
        """[sentence, width]"""
        tokens = self.processor.tokenizer(
            list(sentences),
            padding=True,
            truncation=not cut_end,
            max_length=None if cut_end else self.context,
            return_tensors="pt",
        )
        place = self.model.device
        kept = {name: rows[:, : self.context].to(place) for name, rows in tokens.items()}
        return _features(self.model.get_text_features(**kept))

    def too_long(self, sentence: str) -> bool:
        return len(self.processor.tokenizer(sentence).input_ids) > self.context


@cache
def load_clip(path: str | None = None, revision: str | None = None) -> ClipEncoder:
    """Load a CLIP; without `path`, the shapes world's."""
    return packaged.load_clip() if path is None else PublishedClip(path, revision)


def world_of_path(path: str | None) -> World | None:
    """The world of a judge: "shapes" for the package's, "photographs" on the hub, else unknown."""
    if path is None:
        return "shapes"
    return "photographs" if is_hub_id(path) else None


def is_hub_id(path: str) -> bool:
    local = Path(path).exists() or path.startswith((".", "/", "~"))
    return not local and not Path(path).suffix and path.count("/") <= 1


def as_uint8(pictures: Tensor) -> Tensor:
    """Round to 256 levels, as in a saved picture: CLIP scores are of files."""
    return (pictures * 255).round().to(torch.uint8)


def image_features(encoder: ClipEncoder, pictures: Pictures, shown: Shown) -> Tensor:
    """[case, width]"""
    return pictures.once(encoder, shown, lambda: encoder.images(_shown(pictures, shown)))


def see(encoder: ClipEncoder, pictures: Pictures, shown: Iterable[Shown]) -> None:
    """Compute all needed features in one pass, which is faster than two smaller ones."""
    new: list[Shown] = [s for s in dict.fromkeys(shown) if not pictures.knows(encoder, s)]
    if not new:
        return
    features = encoder.images(torch.cat([_shown(pictures, s) for s in new]))
    for what, part in zip(new, features.chunk(len(new)), strict=True):
        pictures.keep(encoder, what, part)


def text_features(
    encoder: ClipEncoder,
    pictures: Pictures,
    which: Literal["source", "target"],
    *,
    cut_end: bool = False,
) -> Tensor:
    """Features of the cases' source or target prompts, [case, width]."""
    prompts = [getattr(case, f"{which}_prompt") for case in pictures.cases]
    place = pictures.edited.device
    # Cutting the end matters only for prompts that are too long; all others share one pass.
    if cut_end and any(map(encoder.too_long, prompts)):
        what = f"{which} prompt without its end"
        return pictures.once(encoder, what, lambda: encoder.texts(prompts, cut_end=True).to(place))
    return pictures.once(encoder, f"{which} prompt", lambda: encoder.texts(prompts).to(place))


def _shown(pictures: Pictures, shown: Shown) -> Tensor:
    if shown == "region":
        return pictures.edited * pictures.region
    return pictures.source if shown == "source" else pictures.edited


def _features(output: Any) -> Tensor:
    """Unwrap features: transformers 5 wraps them, transformers 4 does not."""
    return getattr(output, "pooler_output", output)


@dataclass(frozen=True)
class Seen:
    """A ViT's features of pictures."""

    keys: Tensor  # last layer, heads concatenated, class token first, [case, position, width]
    finish: Callable[[], Tensor]

    @cached_property
    def token(self) -> Tensor:
        """The final class token, [case, width]; computed on first use."""
        return self.finish()


@dataclass(frozen=True, eq=False)
class VitEncoder:
    """A ViT with its preprocessing."""

    vit: ViTModel
    fingerprint: str
    title: str
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD

    def __call__(self, pictures: Tensor, *, levels: bool = False, antialias: bool = True) -> Seen:
        """Encode pictures in 0..1; `levels`: feed 0..255, which no ViT was trained for.

        `antialias`: average over the area of each new pixel when scaling down.
        """
        check_range("the pictures for the ViT", pictures)
        mean, std = (
            torch.tensor(tuple(v), device=pictures.device)[:, None, None]
            for v in (self.mean, self.std)
        )
        side = cast("int", self.vit.config.image_size)
        pixels = resized(pictures.float(), side, antialias=antialias)
        return last_layer(
            on(self.vit, pixels.device), ((255 if levels else 1) * pixels - mean) / std
        )

    def seen(
        self,
        pictures: Pictures,
        shown: Shown,
        *,
        levels: bool = False,
        antialias: bool = True,
    ) -> Seen:
        """Features of a batch, computed once."""

        def compute() -> Seen:
            return self(_shown(pictures, shown), levels=levels, antialias=antialias)

        return pictures.once(self, f"{shown} {levels} {antialias}", compute)


class _LastLayerReached(Exception):  # noqa: N818 - nothing is wrong
    """Ends a ViT's forward pass once the last layer's input is known."""


@torch.no_grad()
def last_layer(vit: ViTModel, pixels: Tensor) -> Seen:
    """Features of preprocessed pixels; the last layer is computed only as far as needed."""
    sites = [name for name, _ in vit.named_modules() if name.endswith((".k_proj", ".key"))]
    if not sites:
        raise ValueError(f"{type(vit).__name__} has no layer named k_proj or key to read keys at")
    layer: Any = vit.get_submodule(sites[-1].partition(".attention.")[0])
    entered: list[tuple[Any, dict[str, Any]]] = []

    def enter(_module: nn.Module, args: Any, named: dict[str, Any]) -> None:
        entered.append((args, named))
        raise _LastLayerReached

    handle = layer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        with suppress(_LastLayerReached):
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


def resized(pictures: Tensor, side: int, *, antialias: bool = True) -> Tensor:
    """The whole pictures as squares of the ViT's size, whatever their aspect ratio."""
    if pictures.shape[-2:] == (side, side):
        return pictures
    return F.interpolate(pictures, (side, side), mode="bilinear", antialias=antialias)


@cache
def load_vit(path: str | None = None, revision: str | None = None) -> VitEncoder:
    """Load a ViT; without `path`, the shapes world's.

    `path` is a ViT in transformers' layout (a folder, or a hub id at a fixed `revision`), or a
    checkpoint with DINO's names, such as dino_vitbase8_pretrain.pth (timm has the same names).
    """
    if path is None:
        return VitEncoder(
            packaged.load_structure(),
            folder_fingerprint(packaged.STRUCTURE_FOLDER),
            "ViT of the shapes world",
            HALF,
            HALF,
        )
    if Path(path).is_file():
        vit = vit_from_dino(_checkpoint(Path(path)), path)
        return VitEncoder(vit, file_fingerprint(Path(path)), _vit_name(vit.config, "DINO ViT"))
    local = is_local(path, revision, "ViT")
    vit = packaged.load_structure(Path(path)) if local else _vit_of_hub(path, str(revision))
    digest = folder_fingerprint(Path(path)) if local else f"{path}@{revision}"
    return VitEncoder(vit, digest, f"{_vit_name(vit.config, 'ViT')}, {_place(path)}")


def _vit_of_hub(path: str, revision: str) -> ViTModel:
    vit: ViTModel = load_pretrained(
        ViTModel.from_pretrained,
        path,
        "the ViT",
        harmless=packaged.VIT_HEADS,
        revision=revision,
        dtype=torch.float32,
        add_pooling_layer=False,
    )
    return vit.eval().requires_grad_(False)


def given_vit(
    vit: ViTModel, mean: Sequence[float] | None, std: Sequence[float] | None
) -> VitEncoder:
    """A ViT given by the caller; without `mean` and `std` it takes pictures in -1..1."""
    title = f"{_vit_name(vit.config, 'ViT')}, given in Python"
    return VitEncoder(vit, module_fingerprint(vit), title, mean or HALF, std or HALF)


def _vit_name(config: Any, kind: str) -> str:
    """Size and patch width in pixels, such as ViT-B/8."""
    width = int(config.hidden_size)
    return f"{kind}-{SIZES.get(width, width)}/{config.patch_size}"


def _place(path: str) -> str:
    """A hub id, or a folder's name without its parents."""
    return Path(path).resolve().name if Path(path).is_dir() else path


def _checkpoint(file: Path) -> dict[str, Tensor]:
    """Load a checkpoint, also `.pth`, as DINO publishes no other files."""
    if file.suffix == ".pth":
        return read_published_pickle(file, "the ViT")
    return read_tensors(file, "the ViT")


def vit_from_dino(state: dict[str, Tensor], name: str) -> ViTModel:
    """transformers' ViT with the weights of a checkpoint with DINO's names."""
    if not state.keys() >= _DINO_SIGNS:
        raise WeightsError(
            f"{name} is not a DINO ViT's backbone: it lacks "
            f"{', '.join(sorted(_DINO_SIGNS - state.keys()))}; its first tensors are "
            f"{', '.join(list(state)[:3]) or 'none'}"
        )
    vit = ViTModel(_dino_config(state), add_pooling_layer=False)
    theirs = _with_heads_split(state)
    names = {ours: _dino_name(ours) for ours in vit.state_dict()}
    unused = theirs.keys() - set(names.values())
    check("the ViT", name, unexpected=unused, harmless=DINO_HEADS)
    found = {ours: theirs[their] for ours, their in names.items() if their in theirs}
    load_strictly(vit, found, "the ViT", name, original=names)
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
    """Split DINO's joint matrix of query, key and value."""
    split = dict(state)
    for name in [n for n in state if ".attn.qkv." in n]:
        parts = split.pop(name).chunk(3)
        split |= {name.replace("qkv", x): p for x, p in zip("qkv", parts, strict=True)}
    return split


# Tensors that identify a DINO checkpoint and give its sizes.
_DINO_SIGNS = {"pos_embed", "patch_embed.proj.weight", "norm.weight", "blocks.0.mlp.fc1.bias"}

# Parts of transformers' names: version 5, and version 4 if different.
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
    """Whether `path` is a local folder; an id in the hub's cache needs a revision."""
    if Path(path).is_dir():
        return True
    if Path(path).is_file() and Path(path).suffix in PICKLES:
        raise WeightsError(about_pickle(Path(path), f"the {kind}"))
    if is_download(path) or Path(path).suffix in (*PICKLES, ".safetensors"):
        raise ConfigError(
            f"the {kind}'s weights are not at {path!r} ({JUDGES[kind]}): there is nothing. "
            f"{FETCH_JUDGES}"
        )
    if revision is None:
        raise ConfigError(
            f"{path!r} ({JUDGES[kind]}) is not a local folder; a model in the hub's cache needs a "
            "`revision`, so that the numbers stay the same when its repository changes. "
            f"{FETCH_JUDGES}"
        )
    return False


def on(module: Model, device: torch.device) -> Model:
    """The module, moved to the device of the pictures."""
    cast("nn.Module", module).to(device)
    return module
