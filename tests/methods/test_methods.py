"""Samplers and inversions on a small random model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.marks import slow_but_for
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.conditions import Conditions, Draws
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.methods.base import Method
from zerocon.methods.ddim import DDIM
from zerocon.methods.sdedit import SDEdit

IDS = ["a", "b", "c"]
SOURCE = [f"a big red {shape} on a gray background" for shape in ("circle", "square", "house")]
TARGET = [f"a big blue {shape} on a gray background" for shape in ("circle", "square", "house")]
METHODS = [
    DDIM(steps=4, guidance=3.0),
    DDIM(steps=4, guidance=1.0, prompt="source"),
    SDEdit(steps=4, guidance=3.0, strength=0.5),
]


def run(backbone: StableDiffusionBackbone, method: Method, rows: list[int]) -> Tensor:
    clean = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))[rows]
    conditions = Conditions(
        backbone.embed([SOURCE[r] for r in rows]),
        backbone.embed([TARGET[r] for r in rows]),
        backbone.embed([""] * len(rows)),
    )
    invert = DDIMInversion() if method.needs_inversion else NoInversion()
    with torch.no_grad():
        draws = Draws(0, [IDS[r] for r in rows])
        trajectory = invert(backbone, clean, conditions, method.steps, draws)
        return method(backbone, trajectory, conditions, draws)


@pytest.mark.parametrize(
    "method", slow_but_for(METHODS[:1], METHODS), ids=lambda m: type(m).__name__
)
def test_cases_of_a_batch_are_independent(
    backbone: StableDiffusionBackbone, method: Method
) -> None:
    together = run(backbone, method, [0, 1, 2])
    backwards = run(backbone, method, [2, 1, 0]).flip(0)
    alone = torch.cat([run(backbone, method, [r]) for r in range(3)])
    torch.testing.assert_close(together, backwards, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_reconstruction_returns_to_the_start(backbone: StableDiffusionBackbone) -> None:
    clean = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    errors = [
        (run_reconstruction(backbone, clean, steps) - clean).square().mean().item()
        for steps in (10, 50)
    ]
    # A random network is no denoiser, so only that finer steps come closer is sure.
    assert errors[1] < 0.5 * errors[0]


def run_reconstruction(backbone: StableDiffusionBackbone, clean: Tensor, steps: int) -> Tensor:
    source = backbone.embed(SOURCE[:1])
    conditions, draws = Conditions(source, source, source), Draws(0, ["a"])
    trajectory = DDIMInversion()(backbone, clean, conditions, steps, draws)
    assert trajectory.latents.shape == (steps + 1, *clean.shape)
    assert trajectory.clean is not trajectory.start
    method = DDIM(steps=steps, guidance=1.0, prompt="source")
    return method(backbone, trajectory, conditions, draws)


def test_a_stronger_sdedit_moves_further(backbone: StableDiffusionBackbone) -> None:
    clean = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = [
        (run(backbone, SDEdit(steps=10, guidance=1.0, strength=s), [0, 1, 2]) - clean).norm()
        for s in (0.1, 0.5, 1.0)
    ]
    assert moved[0] < moved[1] < moved[2]


def test_draws_belong_to_the_case() -> None:
    z = torch.zeros(2, 4, 16, 16)
    first = Draws(0, ["a", "b"]).normal_like(z, "noise")
    swapped = Draws(0, ["b", "a"]).normal_like(z, "noise")
    assert torch.equal(first, swapped.flip(0))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, Draws(1, ["a", "b"]).normal_like(z, "noise"))
    assert not torch.equal(first, Draws(0, ["a", "b"]).normal_like(z, "other purpose"))


def test_which_prompt_it_uses() -> None:
    assert "target" in DDIM().uses
    assert "target" not in DDIM(prompt="source").uses
