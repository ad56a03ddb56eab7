"""The stages of the recipe in order, and their results for later stages and the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from zerocon.core.checks import ConfigError
from zerocon.core.weights import PACKAGED, folder_fingerprint, load_strictly, read_tensors
from zerocon.shapes.packaged import plain_float32, save_half
from zerocon.shapes.tokenizer import write_clip_tokenizer
from zerocon.shapes.train import captioner, eval_clip, flow, perceptual, structure, text, unet, vae
from zerocon.shapes.train.data import SceneData, load_scenes
from zerocon.shapes.train.loop import Budget, Recipe

SCENES = 60_000
SCENES_OF = {"flow": 150_000}  # a GPU learns from more than is drawn for the other stages


@dataclass(frozen=True)
class Job:
    """A stage's folders and resources."""

    data: SceneData
    work: Path
    out: Path
    budget: Budget
    changes: dict[str, Any]  # changed fields of the recipe
    warm: bool = False  # start from the weights in `out`, if the stage supports it
    device: str = "cpu"  # of the stages that can be trained on a GPU

    def recipe(self, shipped: Recipe) -> Recipe:
        return dataclasses.replace(shipped, **self.changes)

    @property
    def generator(self) -> Path:
        return self.out / "generator"

    @property
    def flow(self) -> Path:
        return self.out / "flow"


def _text(job: Job) -> None:
    tokenizer = write_clip_tokenizer(job.generator / "tokenizer")
    pair = text.train_text(job.data, tokenizer, job.work, job.budget, job.recipe(text.RECIPE))
    model = text.plain_text_model(pair).half()
    model.save_pretrained(job.generator / "text_encoder")
    plain_float32(job.generator / "text_encoder" / "config.json")
    # The image tower of the contrastive pair is only used by the check's retrieval.
    save_half(pair.text.text_projection, job.out / "generator_clip" / "projection.safetensors")
    save_half(pair.image, job.out / "generator_clip" / "image_tower.safetensors")


def _vae(job: Job) -> None:
    model = vae.train_vae(job.data, job.work, job.budget, job.recipe(vae.RECIPE))
    model.half().save_pretrained(job.generator / "vae")


def _unet(job: Job) -> None:
    latents = _latents(job)
    encoder = CLIPTextModel.from_pretrained(job.generator / "text_encoder").float().eval()
    tokenizer = CLIPTokenizer.from_pretrained(job.generator / "tokenizer")
    recipe = job.recipe(unet.RECIPE)
    start = load_unet(job.generator) if job.warm else None
    model = unet.train_unet(
        job.data, latents, encoder, tokenizer, job.work, job.budget, recipe, start
    )
    save_unet(model, job.generator)


def _latents(job: Job) -> Tensor:
    """The latents of all pictures, stored beside them for all stages that need them."""
    kept = (
        job.work.parent
        / "data"
        / f"latents-{folder_fingerprint(job.generator / 'vae')}-{len(job.data)}.pt"
    )
    return unet.encode_all(load_vae(job.generator), job.data, kept, job.device)


def _text_2(job: Job) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(job.generator / "tokenizer")
    pair = text.train_text(job.data, tokenizer, job.work, job.budget, job.recipe(text.SECOND))
    save_encoder(pair.text, job.flow / "text_encoder_2")


def _flow(job: Job) -> None:
    tokenizer = write_flow_parts(job.generator, job.out / "generator_clip", job.flow)
    encoders = [
        CLIPTextModelWithProjection.from_pretrained(job.flow / name).float().eval()
        for name in ("text_encoder", "text_encoder_2")
    ]
    texts = flow.Texts(tokenizer, encoders)
    recipe = job.recipe(flow.RECIPE)
    start = load_transformer(job.flow) if job.warm else None
    latents = _latents(job)
    model = flow.train_flow(
        job.data, latents, texts, job.work, job.budget, recipe, start, job.device
    )
    save_transformer(model, job.flow)


def _captioner(job: Job) -> None:
    recipe = job.recipe(captioner.RECIPE)
    model = captioner.train_captioner(job.data, job.work, job.budget, recipe)
    captioner.export(model, job.out / "captioner")


def _eval_clip(job: Job) -> None:
    recipe = job.recipe(eval_clip.RECIPE)
    model = eval_clip.train_eval_clip(job.data, job.work, job.budget, recipe)
    eval_clip.export(model, job.out / "eval_clip")


def _structure(job: Job) -> None:
    recipe = job.recipe(structure.RECIPE)
    model = structure.train_structure(job.data, job.work, job.budget, recipe)
    structure.export(model, job.out / "eval_structure")


def _perceptual(job: Job) -> None:
    recipes = job.recipe(perceptual.RECIPE), job.recipe(perceptual.HEADS)
    model = perceptual.train_perceptual(job.data, job.work, job.budget, *recipes)
    perceptual.export(model, job.out / "eval_lpips")


STAGES: dict[str, Callable[[Job], None]] = {
    "text": _text,
    "vae": _vae,
    "unet": _unet,
    "text_2": _text_2,
    "flow": _flow,
    "captioner": _captioner,
    "eval_clip": _eval_clip,
    "structure": _structure,
    "perceptual": _perceptual,
}


def load_vae(generator: Path) -> Any:
    model: Any = AutoencoderKL.from_pretrained(generator / "vae", low_cpu_mem_usage=False)
    return model.float().eval()


def load_unet(generator: Path) -> Any:
    model: Any = UNet2DConditionModel.from_pretrained(generator / "unet", low_cpu_mem_usage=False)
    return model.float()


def save_unet(model: UNet2DConditionModel, generator: Path) -> None:
    """In the diffusers layout, with the scheduler and the index that pipelines read."""
    model.set_attn_processor(AttnProcessor2_0())
    # Leave out the path that `--warm` loaded it from.
    model.register_to_config(_name_or_path="")
    model.half().save_pretrained(generator / "unet")
    unet.scheduler().save_pretrained(generator / "scheduler")
    unet.write_model_index(generator)


def write_flow_parts(generator: Path, clip: Path, folder: Path) -> CLIPTokenizer:
    """Copy what the flow model shares with the U-Net's pipeline: the autoencoder, the tokenizer
    (for shorter captions), and the text encoder with its projection."""
    vae = load_vae(generator)
    vae.register_to_config(shift_factor=0.0, _name_or_path="")
    vae.half().save_pretrained(folder / "vae")
    for name in ("tokenizer", "tokenizer_2"):
        write_clip_tokenizer(folder / name, flow.CONTEXT)
    encoder = text.build_text()
    trained = CLIPTextModel.from_pretrained(generator / "text_encoder").float()
    encoder.text_model.load_state_dict(trained.state_dict())
    projection = clip / "projection.safetensors"
    tensors = read_tensors(projection, "the projection")
    load_strictly(encoder.text_projection, tensors, "the projection", projection)
    save_encoder(encoder, folder / "text_encoder")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer")


def save_encoder(encoder: CLIPTextModelWithProjection, folder: Path) -> None:
    encoder.half().save_pretrained(folder)
    plain_float32(folder / "config.json")


def load_transformer(folder: Path) -> Any:
    path = folder / "transformer"
    model: Any = SD3Transformer2DModel.from_pretrained(path, low_cpu_mem_usage=False)
    return model.float()


def save_transformer(model: SD3Transformer2DModel, folder: Path) -> None:
    """In the diffusers layout, with the scheduler and the index that pipelines read."""
    model.register_to_config(_name_or_path="")
    model.half().save_pretrained(folder / "transformer")
    flow.scheduler().save_pretrained(folder / "scheduler")
    flow.write_model_index(folder)


def train_stages(
    names: Sequence[str],
    work: Path,
    out: Path = PACKAGED,
    *,
    scenes: int | None = None,
    seconds: float = math.inf,
    threads: int | None = None,
    warm: bool = False,
    device: str = "cpu",
    changes: dict[str, Any] | None = None,
) -> None:
    """Train the named stages (default: all), continuing unfinished ones."""
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        raise ConfigError(f"there is no stage {unknown[0]!r}; the stages are: {', '.join(STAGES)}")
    if threads is not None:
        torch.set_num_threads(threads)
    for name in names or STAGES:
        data = load_scenes("train", scenes or SCENES_OF.get(name, SCENES), work / "data")
        budget = Budget(seconds=seconds)
        STAGES[name](Job(data, work / name, out, budget, changes or {}, warm, device))
