"""The flow transformer: Stable Diffusion 3's, block for block, only smaller.

Esser et al. 2024. It is told of a caption by two text encoders; the third, T5, is left out, as
Stable Diffusion 3's own pipeline allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from zerocon.shapes.train.data import SceneData
from zerocon.shapes.train.lessons import Asked, Lessons
from zerocon.shapes.train.loop import Budget, Log, Recipe, train
from zerocon.shapes.train.text import WIDTH

RECIPE = Recipe(
    "flow", steps=9000, batch=48, lr=2e-3, seed=31, warmup=200, ema=0.999, muon=True, settle=0.2
)
CONTEXT = 32  # tokens of a caption; the grammar's longest has 29
ZEROS = 256  # tokens that stand for T5's, all zero: what the pipeline puts there
LAYERS, HEADS, HEAD_WIDTH, PATCH = 8, 6, 32, 2
ASKED = (3, 5)  # the blocks whose features the heads read
LESSONS = 0.05  # how much the heads' questions count at first; nothing at the end
PLACED = 0.78  # below this time a noisy picture shows where things are


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
    silence(model)
    return model


def silence(model: Any) -> None:
    """Every block changes nothing at first (Peebles & Xie 2023): its gates are zero."""
    norms = [n for b in model.transformer_blocks for n in (b.norm1, b.norm1_context)]
    for linear in (*(norm.linear for norm in norms), model.norm_out.linear, model.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=1.0)


class OneZero:
    """Joint attention to the text's tokens and one more, which counts as `ZEROS` equal ones.

    The tokens in T5's place are all the same and have no position, so attention to all of them
    is attention to one whose score is larger by the logarithm of their number.
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
        scores = queries @ keys.transpose(-1, -2) * HEAD_WIDTH**-0.5
        more = keys.new_zeros(keys.shape[2])
        more[-1] = math.log(ZEROS)
        mixed = (torch.softmax(scores + more, -1) @ values).transpose(1, 2).flatten(2)
        to_image, to_text = mixed.split([image.shape[1], text.shape[1]], dim=1)
        if not attn.context_pre_only:
            to_text = attn.to_add_out(to_text)
        return attn.to_out[0](to_image), to_text


class Texts:
    """Both encoders' view of captions, as `StableDiffusion3Pipeline.encode_prompt` joins them."""

    def __init__(
        self, tokenizer: CLIPTokenizer, encoders: Sequence[CLIPTextModelWithProjection]
    ) -> None:
        self.tokenizer, self.encoders = tokenizer, [e.requires_grad_(False) for e in encoders]

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """(tokens with one zero token behind, [row, CONTEXT + 1, width]; pooled, [row, width])."""
        ids = self.tokenizer(
            captions, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        seen: list[Any] = [e(ids, output_hidden_states=True) for e in self.encoders]
        tokens = torch.cat([s.hidden_states[-2] for s in seen], dim=-1)
        zero = torch.zeros_like(tokens[:, :1])
        return torch.cat([tokens, zero], 1), torch.cat([s.text_embeds for s in seen], dim=-1)


def times(count: int, generator: torch.Generator) -> Tensor:
    """Of a flow, 0..1: two thirds logit-normal, as published, a third uniform.

    Inversion and editing ask at the ends, too, where the logit-normal hardly ever looks.
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
) -> SD3Transformer2DModel:
    torch.manual_seed(recipe.seed)
    model = start or build()
    processor = model.transformer_blocks[0].attn.processor
    model.set_attn_processor(OneZero())
    blocks = [(model.transformer_blocks[k], HEADS * HEAD_WIDTH) for k in ASKED]
    asked, lessons = Asked(model, blocks, _image_map), Lessons(data.scenes)
    odds = lessons.odds()

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows, captions = data.drawn(odds, recipe.batch, f"flow-{step}", generator)
        tokens, pooled = texts(captions)
        clean = latents[rows].float()
        noise = torch.randn(clean.shape, generator=generator)
        t = times(recipe.batch, generator)
        mixed = t[:, None, None, None]
        velocity = asked(
            hidden_states=(1 - mixed) * clean + mixed * noise,
            timestep=t * 1000,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
        ).float()
        squared = (velocity - (noise - clean)).square()
        error = lessons.error(squared, rows, t < PLACED)
        wrong = asked.wrong(lessons, rows)
        asking = LESSONS * max(0.0, 1 - step / recipe.steps)
        return error.mean() + asking * wrong, {
            "error": error.mean().item(),
            "wrong": wrong.item(),
            "noisy": error[t >= 0.7].mean().item(),
            "middle": error[(t >= 0.3) & (t < 0.7)].mean().item(),
            "clean": error[t < 0.3].mean().item(),
        }

    trained, _ = train(asked, loss_of, recipe, folder, budget)
    whole = trained.without_heads()
    whole.set_attn_processor(processor)
    return whole


def _image_map(output: tuple[Tensor, Tensor]) -> Tensor:
    """A block's image tokens, [row, position, width], as a map."""
    image = output[1]
    side = math.isqrt(image.shape[1])
    return image.transpose(1, 2).unflatten(2, (side, side))


def write_model_index(folder: Path) -> None:
    """What `StableDiffusion3Pipeline.from_pretrained` reads first."""
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
