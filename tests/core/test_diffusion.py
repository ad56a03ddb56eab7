"""DDIM against diffusers' scheduler, and its inverse against itself."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from zerocon.core.diffusion import (
    add_noise,
    ddim_schedule,
    ddim_step,
    eps_from_v,
    guided,
    predicted_clean,
)

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@pytest.mark.parametrize("steps", [1, 10, 50, 999, 1000])
def test_times_and_alphas_are_those_of_diffusers(steps: int) -> None:
    theirs = DDIMScheduler(**SD)
    theirs.set_timesteps(steps)
    ours = ddim_schedule(theirs.alphas_cumprod.double(), steps)
    assert list(ours.times) == [min(t, 999) for t in theirs.timesteps.tolist()]
    assert len(ours.alphas) == steps + 1
    assert ours.alphas[-1] == pytest.approx(float(theirs.final_alpha_cumprod))


def test_sampling_steps_are_those_of_diffusers() -> None:
    theirs = DDIMScheduler(**SD)
    theirs.set_timesteps(10)
    ours = ddim_schedule(theirs.alphas_cumprod.double(), 10)
    torch.manual_seed(0)
    a = b = torch.randn(2, 4, 8, 8)
    for time, alpha, alpha_below in ours.steps:
        eps = torch.randn_like(a)
        a = ddim_step(a, eps, alpha, alpha_below)
        b = theirs.step(eps, time, b).prev_sample
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_step_back_undoes_a_step() -> None:
    z, eps = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4).double()
    there = ddim_step(z, eps, 0.5, 0.1)
    torch.testing.assert_close(ddim_step(there, eps, 0.1, 0.5), z)


def test_the_clean_latent_is_found_in_what_noise_made_of_it() -> None:
    clean, noise = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4).double()
    torch.testing.assert_close(predicted_clean(add_noise(clean, noise, 0.3), noise, 0.3), clean)


def test_v_predictions_mean_the_noise() -> None:
    clean, noise = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4).double()
    alpha = torch.tensor(0.3, dtype=torch.float64)
    v = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    torch.testing.assert_close(eps_from_v(v, add_noise(clean, noise, 0.3), alpha), noise)


def test_guidance_moves_from_the_negative_through_the_condition() -> None:
    def eps(z: torch.Tensor, time: int, cond: torch.Tensor) -> torch.Tensor:
        return z * 0 + cond.mean((1, 2))[:, None, None, None]

    z = torch.zeros(2, 1, 2, 2)
    cond, negative = torch.full((2, 3, 4), 2.0), torch.full((2, 3, 4), 1.0)
    assert guided(eps, z, 1, cond, negative, 7.5).unique().tolist() == [8.5]
    assert guided(eps, z, 1, cond, negative, 1.0).unique().tolist() == [2.0]


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_named(steps: int) -> None:
    with pytest.raises(ValueError, match=r"method\.steps"):
        ddim_schedule(torch.linspace(0.99, 0.01, 1000), steps)
