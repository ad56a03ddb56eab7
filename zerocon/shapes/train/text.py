"""The generator's text encoder, trained contrastively with pictures and captions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from zerocon.shapes.tokenizer import CONTEXT, clip_vocabulary
from zerocon.shapes.train.data import SceneData
from zerocon.shapes.train.loop import Budget, Log, Recipe, train

RECIPE = Recipe("text", steps=2600, batch=128, lr=1e-3, seed=12, weight_decay=0.01, ema=0.998)
# The flow transformer has two text encoders.
SECOND = dataclasses.replace(RECIPE, name="text_2", steps=400, seed=22)
WIDTH = 96


def build_text() -> CLIPTextModelWithProjection:
    ids, _ = clip_vocabulary()
    end = len(ids) - 1
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(ids),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            projection_dim=WIDTH,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def _residual(width: int) -> nn.Module:
    return nn.Sequential(
        nn.GroupNorm(8, width),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.GroupNorm(8, width),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, padding=1),
    )


class ImageTower(nn.Module):
    """A small convolutional network with a head that reads the last map's positions."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=2, padding=1)
        self.down = nn.ModuleList(
            [nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.Conv2d(64, 128, 4, stride=2, padding=1)]
        )
        self.blocks = nn.ModuleList([_residual(64), _residual(128)])
        self.read = nn.Linear(128 * 64, width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for down, block in zip(self.down, self.blocks, strict=True):
            x = down(F.silu(x))
            x = x + block(x)
        return self.read(F.silu(x).flatten(1))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = build_text()
        self.image = ImageTower()
        self.scale = nn.Parameter(torch.tensor(2.6))


def contrastive(image: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, Log]:
    """CLIP's symmetric cross entropy, and the accuracy of retrieving the caption."""
    logits = F.normalize(image.float(), dim=1) @ F.normalize(text.float(), dim=1).T
    logits = logits * scale.clamp(max=4.6).exp()
    labels = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    return loss, {"accuracy": (logits.argmax(1) == labels).float().mean().item()}


def pairs_of(rows: Tensor) -> Tensor:
    """Both scenes of each pair."""
    return torch.stack([2 * rows, 2 * rows + 1], 1).flatten()


def train_text(
    data: SceneData, tokenizer: CLIPTokenizer, folder: Path, budget: Budget, recipe: Recipe = RECIPE
) -> Pair:
    torch.manual_seed(recipe.seed)
    pair = Pair()

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, Log]:
        rows = pairs_of(torch.randint(len(data) // 2, (recipe.batch // 2,), generator=generator))
        # Padding comes after the end token, where a causal model does not attend.
        tokens = tokenizer(data.captions(rows, f"text-{step}"), padding=True, return_tensors="pt")
        text = pair.text(input_ids=tokens.input_ids).text_embeds
        return contrastive(pair.image(data.images(rows)), text, pair.scale)

    trained, _ = train(pair, loss_of, recipe, folder, budget)
    return trained


def plain_text_model(pair: Pair) -> CLIPTextModel:
    """The encoder without projection, in the class that Stable Diffusion uses."""
    model = CLIPTextModel(pair.text.config)
    model.load_state_dict(pair.text.text_model.state_dict())
    return model.eval()
