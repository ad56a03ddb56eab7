"""A training run that takes no time, for the loop's tests."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor, nn

from zerocon.shapes.train.loop import Budget, Recipe, train

RECIPE = Recipe("toy", steps=40, batch=8, lr=1e-2, seed=3, warmup=5, ema=0.9, bf16=False)


def toy(folder: Path, budget: Budget, pause: float = 0.0, recipe: Recipe = RECIPE) -> nn.Module:
    torch.manual_seed(recipe.seed)
    model = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 4))

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(recipe.batch, 4, generator=generator)
        time.sleep(pause)
        return (model(x) - x.flip(1)).square().mean(), {}

    trained, _ = train(model, loss_of, recipe, folder, budget)
    return trained
