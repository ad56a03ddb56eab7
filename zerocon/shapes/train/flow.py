"""The flow transformer: Stable Diffusion 3's architecture, only smaller.

Esser et al. 2024. It has two text encoders; the third, T5, is left out, as Stable Diffusion 3's
pipeline allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from zerocon.shapes.train.ahead import Ahead
from zerocon.shapes.train.auxiliary import PositionClasses, WithHeads
from zerocon.shapes.train.data import SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, generator_of, train
from zerocon.shapes.train.text import WIDTH

RECIPE = Recipe(
    "flow", steps=4950, batch=256, lr=2e-3, seed=31, warmup=200, ema=0.999, muon=True, settle=0.3
)
CONTEXT = 32  # tokens of a caption; the grammar's longest has 29
ZEROS = 256  # zero tokens in the place of T5's, as in the pipeline
LAYERS, HEADS, HEAD_WIDTH, PATCH = 8, 6, 32, 1
AUXILIARY_BLOCKS = (3, 5)  # the blocks whose features the heads read
AUXILIARY_WEIGHT = 0.05  # initial weight of the heads' loss; it falls linearly to 0
AHEAD = 12  # processes that draw batches for a GPU
VISIBLE = 0.78  # below this time the noisy picture shows where things are


def build() -> Any:
    model: Any = SD3Transformer2DModel(
        sample_size=16,
        patch_size=PATCH,
        in_channels=4,
        out_channels=4,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
    )
    zero_gates(model)
    return model


def zero_gates(model: Any) -> None:
    """Start every block as the identity, with gates of zero (Peebles & Xie 2023)."""
    norms = [n for b in model.transformer_blocks for n in (b.norm1, b.norm1_context)]
    for linear in (*(norm.linear for norm in norms), model.norm_out.linear, model.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


class OneZero:
    """Joint attention in which the last text token counts as `ZEROS` equal tokens.

    The tokens in T5's place are equal and have no position, so attention to all of them is
    attention to one with a score larger by the logarithm of their number.
    """

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        image, text = hidden_states, encoder_hidden_states

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        image_queries, image_keys = heads(attn.to_q(image)), heads(attn.to_k(image))
        text_queries, text_keys = heads(attn.add_q_proj(text)), heads(attn.add_k_proj(text))
        queries = torch.cat([attn.norm_q(image_queries), attn.norm_added_q(text_queries)], 2)
        keys = torch.cat([attn.norm_k(image_keys), attn.norm_added_k(text_keys)], 2)
        values = torch.cat([heads(attn.to_v(image)), heads(attn.add_v_proj(text))], 2)
        more = F.pad(keys.new_full((1,), math.log(ZEROS)), (keys.shape[2] - 1, 0))
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=more[None])
        mixed = mixed.transpose(1, 2).flatten(2)
        to_image, to_text = mixed.split([image.shape[1], text.shape[1]], dim=1)
        if not attn.context_pre_only:
            to_text = attn.to_add_out(to_text)
        return attn.to_out[0](to_image), to_text


@dataclass(frozen=True)
class Batch:
    """What one step learns from: scenes, their captions' token ids, noise and times."""

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    noise: NDArray[np.float32]
    times: NDArray[np.float32]


class Texts:
    """Captions encoded by both encoders, joined as in `StableDiffusion3Pipeline.encode_prompt`."""

    def __init__(
        self, tokenizer: CLIPTokenizer, encoders: Sequence[CLIPTextModelWithProjection]
    ) -> None:
        self.tokenizer, self.encoders = tokenizer, [e.requires_grad_(False) for e in encoders]

    def to(self, device: torch.device) -> Texts:
        for encoder in self.encoders:
            nn.Module.to(encoder, device)
        return self

    def ids(self, captions: list[str]) -> Tensor:
        found: Any = self.tokenizer(
            captions, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        )
        return found.input_ids

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(tokens and one zero token, [row, CONTEXT + 1, width]; pooled, [row, width])."""
        seen: list[Any] = [e(ids, output_hidden_states=True) for e in self.encoders]
        tokens = torch.cat([s.hidden_states[-2] for s in seen], dim=-1)
        zero = torch.zeros_like(tokens[:, :1])
        return torch.cat([tokens, zero], 1), torch.cat([s.text_embeds for s in seen], dim=-1)


def times(count: int, generator: torch.Generator) -> Tensor:
    """Training times in 0..1: two thirds logit-normal, as published, a third uniform.

    Inversion and editing also need the ends, which the logit-normal hardly samples.
    """
    u, v = torch.rand(2, count, generator=generator)
    middle = torch.randn(count, generator=generator).sigmoid()
    return torch.where(u < 1 / 3, v, middle)


def train_flow(
    data: SceneData,
    latents: Tensor,
    texts: Texts,
    folder: Path,
    budget: Budget,
    recipe: Recipe = RECIPE,
    start: Any = None,
    device: str = "cpu",
) -> SD3Transformer2DModel:
    torch.manual_seed(recipe.seed)
    model = start or build()
    processor = model.transformer_blocks[0].attn.processor
    model.set_attn_processor(OneZero())
    blocks = [(model.transformer_blocks[k], HEADS * HEAD_WIDTH) for k in AUXILIARY_BLOCKS]
    with_heads, classes = WithHeads(model, blocks, _image_map), PositionClasses(data.scenes)
    odds, place = classes.odds(), torch.device(device)
    shape = latents.shape[1:]

    def drawn(step: int) -> Batch:
        generator = generator_of(recipe, step)
        rows, captions = data.drawn(odds, recipe.batch, f"flow-{step}", generator)
        noise = torch.randn(recipe.batch, *shape, generator=generator)
        t = times(recipe.batch, generator)
        return Batch(rows.numpy(), texts.ids(captions).numpy(), noise.numpy(), t.numpy())

    def loss_of(step: int, _: torch.Generator) -> tuple[Tensor, Log]:
        share = AUXILIARY_WEIGHT * max(0.0, 1 - step / recipe.steps)
        return flow_loss(with_heads, classes, texts, latents, batches(step), share)

    with Ahead(drawn, processes=AHEAD if place.type == "cuda" else 0) as batches:
        with_heads, latents = with_heads.to(place), latents.to(place)
        texts, classes = texts.to(place), classes.to(place)
        if place.type == "cuda":
            compile_blocks(model)
        trained, _ = train(with_heads, loss_of, recipe, folder, budget)
    whole = trained.without_heads().cpu()
    for block in whole.transformer_blocks:
        block.__dict__.pop("forward", None)
    whole.set_attn_processor(processor)
    return whole


def flow_loss(
    with_heads: WithHeads,
    classes: PositionClasses,
    texts: Texts,
    latents: Tensor,
    batch: Batch,
    share: float,
) -> tuple[Tensor, Log]:
    """The error of the velocity, `noise - clean`, and `share` of the heads' loss."""
    rows, ids, noise, t = (
        torch.from_numpy(part).to(latents.device)
        for part in (batch.rows, batch.ids, batch.noise, batch.times)
    )
    tokens, pooled = texts(ids)
    clean = latents[rows].float()
    mixed = t[:, None, None, None]
    velocity = with_heads(
        hidden_states=(1 - mixed) * clean + mixed * noise,
        timestep=t * 1000,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
    ).float()
    squared = (velocity - (noise - clean)).square()
    error = classes.error(squared, rows, t < VISIBLE)
    auxiliary = with_heads.loss(classes, rows)
    return error.mean() + share * auxiliary, {
        "error": error.mean(),
        "wrong": auxiliary,
        "noisy": _mean_where(error, t >= 0.7),
        "middle": _mean_where(error, (t >= 0.3) & (t < 0.7)),
        "clean": _mean_where(error, t < 0.3),
    }


def compile_blocks(model: Any) -> None:
    """Compile the blocks, which are alike, one by one: seconds instead of minutes."""
    for block in model.transformer_blocks:
        block.forward = torch.compile(block.forward, dynamic=False)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Without waiting for the GPU to know how many are chosen."""
    return (values * chosen).sum() / chosen.sum()


def _image_map(output: tuple[Tensor, Tensor]) -> Tensor:
    """A block's image tokens, [row, position, width], as a map."""
    image = output[1]
    side = math.isqrt(image.shape[1])
    return image.transpose(1, 2).unflatten(2, (side, side))


def write_model_index(folder: Path) -> None:
    """Write the index that `StableDiffusion3Pipeline.from_pretrained` reads."""
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": [None, None],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "tokenizer_3": [None, None],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
