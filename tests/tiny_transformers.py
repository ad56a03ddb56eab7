"""Small random models with the topology of Stable Diffusion 3 and of FLUX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from zerocon.backbones.flux import FluxBackbone, FluxParts
from zerocon.backbones.loading import fingerprint_of
from zerocon.backbones.sd3 import SD3Backbone, SD3Parts, SD3PartsWithoutT5
from zerocon.shapes.captions import vocabulary
from zerocon.shapes.tokenizer import write_clip_tokenizer

WIDTH = 32  # of a text token in the joint attention: T5's
CPU = torch.device("cpu")


def clip_config(tokenizer: CLIPTokenizer, width: int, projection: int) -> CLIPTextConfig:
    end = tokenizer.eos_token_id
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )


def t5_tokenizer() -> T5TokenizerFast:
    """The grammar's words, and letters for the others."""
    words: list[str] = sorted(vocabulary())
    letters = "abcdefghijklmnopqrstuvwxyz,."
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [*((f"▁{word}", -2.0) for word in words), ("▁", -3.0), *((c, -6.0) for c in letters)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=512)


def t5_encoder(tokenizer: T5TokenizerFast) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=WIDTH,
            d_kv=8,
            d_ff=32,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def tiny_vae(channels: int = 16) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def awake(model: nn.Module, seed: int = 7) -> Any:
    """Random weights also where diffusers initialises zeros, so that every part has an effect."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        scale = 0.1 if weight.ndim == 1 else 0.7 / weight[0].numel() ** 0.5
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)
        if "norm_" in name and weight.ndim == 1 and name.endswith(".weight"):
            weight.data.add_(1)  # of queries and keys
    return model


def tiny_sd3_parts(folder: Path, *, t5: bool = True, **changes: Any) -> SD3PartsWithoutT5:
    """Three blocks over 8 x 8 image tokens; `changes`: to the transformer's config."""
    torch.manual_seed(0)
    tokenizer = write_clip_tokenizer(folder / "tokenizer")
    config: dict[str, Any] = {
        "sample_size": 16,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 3,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 12 + 10,
        "pos_embed_max_size": 24,
    }
    parts: dict[str, Any] = {
        "vae": tiny_vae(),
        "transformer": awake(SD3Transformer2DModel(**config | changes)),
        "text_encoder": CLIPTextModelWithProjection(clip_config(tokenizer, 12, 12)),
        "tokenizer": tokenizer,
        "text_encoder_2": CLIPTextModelWithProjection(clip_config(tokenizer, 16, 10)),
        "tokenizer_2": tokenizer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    if not t5:
        return SD3PartsWithoutT5(**parts)
    tokenizer_3 = t5_tokenizer()
    return SD3Parts(**parts, text_encoder_3=t5_encoder(tokenizer_3), tokenizer_3=tokenizer_3)


def tiny_sd3(parts: SD3PartsWithoutT5, **changes: Any) -> SD3Backbone:
    settings = {"dtype": torch.float32} | changes
    dtype = settings.pop("dtype")
    return SD3Backbone(parts, "tiny-sd3", CPU, dtype, fingerprint_of(parts), **settings)


def tiny_flux_parts(folder: Path, *, schnell: bool = False, **changes: Any) -> FluxParts:
    """Two blocks with two streams and two with one; `changes`: to the transformer's config."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = write_clip_tokenizer(folder / "tokenizer"), t5_tokenizer()
    config: dict[str, Any] = {
        "in_channels": 64,
        "num_layers": 2,
        "num_single_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "pooled_projection_dim": 12,
        "guidance_embeds": not schnell,
        "axes_dims_rope": (2, 2, 4),
    }
    shift: dict[str, Any] = {"shift": 1.0 if schnell else 3.0, "use_dynamic_shifting": not schnell}
    return FluxParts(
        vae=tiny_vae(),
        transformer=awake(FluxTransformer2DModel(**config | changes)),
        text_encoder=CLIPTextModel(clip_config(tokenizer, 12, 12)),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(tokenizer_2),
        tokenizer_2=tokenizer_2,
        scheduler=FlowMatchEulerDiscreteScheduler(**shift),
    )


def tiny_flux(parts: FluxParts, **changes: Any) -> FluxBackbone:
    settings: dict[str, Any] = {"dtype": torch.float32, "size": (32, 32), "t5_tokens": 24} | changes
    settings.setdefault("guidance", "embedded" if _takes_guidance(parts) else "classifier_free")
    dtype = settings.pop("dtype")
    return FluxBackbone(parts, "tiny-flux", CPU, dtype, fingerprint_of(parts), **settings)


def _takes_guidance(parts: FluxParts) -> bool:
    return bool(parts.transformer.config["guidance_embeds"])
