"""The training loop of all stages: seeded, resumable, with logged curves."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zerocon.shapes.train.muon import Muon, has_fast_bfloat16

Log = dict[str, float | Tensor]
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one stage."""

    name: str
    steps: int
    batch: int
    lr: float
    seed: int
    warmup: int = 100
    weight_decay: float = 0.0
    ema: float = 0.0  # decay per step of the weights' average; 0: no averaging
    clip: float = 1.0
    bf16: bool = True  # if the processor or the card has it
    settle: float = 1.0  # share of the steps, at the end, with a falling learning rate
    muon: bool = False  # orthogonalised updates for the matrices (see muon.py)


@dataclass
class Budget:
    """When to stop early, and how often to save and to print."""

    seconds: float = math.inf
    save_every: float = 120.0
    log_every: int = 50


LossFn = Callable[[int, torch.Generator], tuple[Tensor, Log]]


def learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, constant until the last share `settle`, then half a cosine down to 1 %."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    first = max(recipe.warmup, round(recipe.steps * (1 - recipe.settle)))
    done = max(0, step - first) / max(1, recipe.steps - first)
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def generator_of(recipe: Recipe, step: int) -> torch.Generator:
    """The generator of a step's batch."""
    return torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)


def train(
    model: M, loss_of: LossFn, recipe: Recipe, folder: Path, budget: Budget
) -> tuple[M, bool]:
    """Train `model` (in place) from the newest checkpoint; return (averaged model, finished).

    `loss_of(step, generator)` must draw its batch only from the generator, so that a continued
    training sees the same batches as an uninterrupted one. The training runs where the model is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    groups = _groups(model, recipe.weight_decay)
    optimizer: torch.optim.Optimizer
    if recipe.muon:
        optimizer = Muon(groups, lr=recipe.lr)
    else:
        optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.99), fused=True)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    first = step = _resume(folder, model, optimizer, average)
    bf16 = recipe.bf16 and (device.type == "cuda" or has_fast_bfloat16())
    started = saved = time.monotonic()
    model.train()
    while step < recipe.steps and time.monotonic() - started < budget.seconds:
        generator = generator_of(recipe, step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            loss, log = loss_of(step, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        step += 1
        _update_average(average, model, recipe, step)
        if step % budget.log_every == 0:
            row: Log = {"step": step, "loss": loss, "norm": norm, **log}
            pace = (time.monotonic() - started) / (step - first)
            left = min(pace * (recipe.steps - step), budget.seconds - (time.monotonic() - started))
            _write_log(folder, row, f"step {step:,} of {recipe.steps:,}, {_minutes(left)} left")
        if time.monotonic() - saved > budget.save_every:
            _save(folder, model, optimizer, average, step)
            saved = time.monotonic()
    _save(folder, model, optimizer, average, step)
    if recipe.ema:
        model.load_state_dict(average)
    return model.eval(), step >= recipe.steps


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Groups: matrices; matrices that modulate norms (for Adam, as time embeddings); vectors."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and "norm" not in name]
    modulations = [p for name, p in trained if p.ndim >= 2 and "norm" in name]
    vectors = [p for _, p in trained if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": modulations, "weight_decay": decay, "orthogonal": False},
        {"params": vectors, "weight_decay": 0.0},
    ]


@torch.no_grad()
def _update_average(
    average: dict[str, Tensor], model: nn.Module, recipe: Recipe, step: int
) -> None:
    if not recipe.ema:
        return
    decay = min(recipe.ema, (1 + step) / (10 + step))
    state = model.state_dict()
    floats = [k for k, v in average.items() if v.is_floating_point()]
    torch._foreach_lerp_([average[k] for k in floats], [state[k] for k in floats], 1 - decay)


def _minutes(seconds: float) -> str:
    return f"{max(0.0, seconds) / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _write_log(folder: Path, row: Log, far: str) -> None:
    now = time.time()
    file = folder / "log.jsonl"
    numbers = {k: v.item() if isinstance(v, Tensor) else v for k, v in row.items()}
    line = json.dumps({**numbers, "time": round(now, 1)})
    with file.open("a") as out:
        out.write(line + "\n")
    print(f"[{folder.name}] {far} {line}", flush=True)


def _save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "step": step,
    }
    partial = folder / f"checkpoint.{os.getpid()}.partial"
    torch.save(state, partial)
    partial.replace(folder / "checkpoint.pt")


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> int:
    file = folder / "checkpoint.pt"
    if not file.exists():
        return 0
    state = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    return int(state["step"])
