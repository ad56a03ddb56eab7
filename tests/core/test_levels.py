"""Levels, guesses and steps against diffusers' schedulers, and against themselves."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from torch import Tensor

from zerocon.core.levels import (
    Guess,
    Level,
    flow_level,
    flow_path,
    guided,
    moved,
    noise_scale,
    noisy_mean,
    vp_level,
    vp_level_at,
    vp_path,
)
from zerocon.core.timesteps import Spacing, timesteps

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
LEVELS = [vp_level(500, 0.3), flow_level(0.7), flow_level(1.0), flow_level(0.0)]


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64, generator=generator)
    return one, other


@pytest.mark.parametrize("steps", [1, 10, 50, 999, 1000])
def test_diffusion_levels_are_those_of_diffusers(steps: int) -> None:
    theirs = DDIMScheduler(**SD)
    theirs.set_timesteps(steps)
    ours = vp_path(theirs.alphas_cumprod.double(), steps)
    assert [level.time for level in ours.levels[:-1]] == [
        min(t, 999) for t in theirs.timesteps.tolist()
    ]
    assert len(ours) == steps
    assert ours.levels[-1].signal ** 2 == pytest.approx(float(theirs.final_alpha_cumprod))
    assert all(level.signal**2 + level.noise**2 == pytest.approx(1) for level in ours.levels)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 12, 50, 333, 999, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("scheduler", [DDIMScheduler, DDPMScheduler])
def test_spacings_are_those_of_diffusers(
    scheduler: type[DDIMScheduler | DDPMScheduler], spacing: Spacing, steps: int
) -> None:
    theirs = scheduler(timestep_spacing=spacing, steps_offset=1)
    theirs.set_timesteps(steps)
    ours = timesteps(1000, steps, spacing, offset=1)
    assert ours == [min(t, 999) for t in theirs.timesteps.tolist()]


@pytest.mark.parametrize("distilled", [50, 100, 25])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 12, 25])
def test_times_of_consistency_models_are_those_of_diffusers(steps: int, distilled: int) -> None:
    theirs = LCMScheduler(original_inference_steps=distilled)
    theirs.set_timesteps(steps)
    assert timesteps(1000, steps, "consistency", distilled=distilled) == theirs.timesteps.tolist()


def test_a_consistency_model_has_no_more_times_than_it_was_distilled_at() -> None:
    with pytest.raises(ValueError, match=r"method\.steps is 51; it must be between 1 and 50"):
        timesteps(1000, 51, "consistency")


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 28])
def test_flow_levels_are_those_of_diffusers(shift: float, steps: int) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(sigmas=[1 - i / steps for i in range(steps)])
    ours = flow_path(steps, shift=shift)
    torch.testing.assert_close(torch.tensor([lv.noise for lv in ours.levels]), theirs.sigmas)
    told = torch.tensor([level.time for level in ours.levels[:-1]])
    torch.testing.assert_close(told, theirs.timesteps)


def test_diffusion_steps_are_those_of_diffusers() -> None:
    theirs = DDIMScheduler(**SD)
    theirs.set_timesteps(10)
    torch.manual_seed(0)
    a = b = torch.randn(2, 4, 8, 8)
    for here, there in vp_path(theirs.alphas_cumprod.double(), 10).steps:
        eps = torch.randn_like(a)
        a = Guess.from_noise(a, eps, here).at(there)
        b = theirs.step(eps, int(here.time), b).prev_sample
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_flow_steps_are_those_of_diffusers() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(sigmas=[1 - i / 10 for i in range(10)])
    torch.manual_seed(0)
    a = b = torch.randn(2, 4, 8, 8)
    for (here, there), time in zip(flow_path(10, shift=3.0).steps, theirs.timesteps, strict=True):
        velocity = torch.randn_like(a)
        a = Guess.from_velocity(a, velocity, here).at(there)
        b = theirs.step(velocity, time, b).prev_sample
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_mixing_a_guess_gives_the_latent(level: Level) -> None:
    clean, noise = pair()
    z = level.mix(clean, noise)
    torch.testing.assert_close(Guess(clean, noise).at(level), z)
    if level.flow:
        found = Guess.from_velocity(z, noise - clean, level)
    else:
        found = Guess.from_noise(z, noise, level)
    torch.testing.assert_close(found.clean, clean)
    torch.testing.assert_close(found.noise, noise)


def test_v_predictions_give_both_parts() -> None:
    clean, noise = pair()
    level = vp_level(500, 0.3)
    v = level.signal * noise - level.noise * clean
    found = Guess.from_v(level.mix(clean, noise), v, level)
    torch.testing.assert_close(found.clean, clean)
    torch.testing.assert_close(found.noise, noise)


@pytest.mark.parametrize(
    ("here", "there"), [(vp_level(1, 0.5), vp_level(9, 0.1)), (flow_level(0.2), flow_level(1.0))]
)
def test_a_step_back_undoes_a_step(here: Level, there: Level) -> None:
    z, predicted = pair()
    make = Guess.from_velocity if here.flow else Guess.from_noise
    ahead = make(z, predicted, here).at(there)
    torch.testing.assert_close(make(z, predicted, here).seen_from(ahead, there).at(here), z)


@pytest.mark.parametrize("level", LEVELS[:3])
def test_a_moved_latent_keeps_the_prediction(level: Level) -> None:
    z, predicted = pair()
    guess = (Guess.from_velocity if level.flow else Guess.from_noise)(z, predicted, level)
    moved = guess.seen_from(z + 1, level)
    torch.testing.assert_close(moved.at(level), z + 1)
    kept = moved.velocity if level.flow else moved.noise
    torch.testing.assert_close(kept, predicted)


@pytest.mark.parametrize("here", LEVELS[:3])
@pytest.mark.parametrize("there", [vp_level(9, 0.9), flow_level(0.0)])
def test_a_step_along_the_velocity_is_the_step_of_a_sampler(here: Level, there: Level) -> None:
    """DDIM's, for a diffusion model: what it predicts is ε."""
    z, predicted = pair()
    guess = (Guess.from_velocity if here.flow else Guess.from_noise)(z, predicted, here)
    torch.testing.assert_close(moved(z, guess.velocity, here, there), guess.at(there))
    again = Guess.along(z, guess.velocity, here)
    torch.testing.assert_close(again.clean, guess.clean)
    torch.testing.assert_close(again.noise, guess.noise)


def test_the_common_coordinate_is_a_flow_models() -> None:
    clean, noise = pair()
    level = vp_level(500, 0.3)
    z = level.mix(clean, noise) / level.scale
    torch.testing.assert_close(z, (1 - level.t) * clean + level.t * noise)
    assert (flow_level(0.7).t, flow_level(0.7).scale) == (0.7, 1)


def test_a_diffusion_models_level_at_a_flow_time() -> None:
    theirs = DDIMScheduler(**SD)
    alphas = theirs.alphas_cumprod.double()
    for time in (0, 1, 500, 999):
        trained = vp_level(time, float(alphas[time]))
        found = vp_level_at(alphas, trained.t)
        assert found.time == pytest.approx(time, abs=1e-6)
        assert (found.signal, found.noise) == pytest.approx((trained.signal, trained.noise))
    between = vp_level_at(alphas, 0.4321)
    assert between.t == pytest.approx(0.4321)
    assert between.signal**2 + between.noise**2 == pytest.approx(1)
    assert between.time != round(between.time)
    clean, noisiest = vp_level_at(alphas, 0.0), vp_level_at(alphas, 1.0)
    assert (clean.time, clean.signal, clean.noise) == (0, 1, 0)
    assert (noisiest.time, noisiest.signal) == pytest.approx((999, float(alphas[-1]) ** 0.5))


def test_guidance_moves_from_the_negative_through_the_condition() -> None:
    def both(value: float) -> Guess:
        return Guess(torch.full((2, 1, 2, 2), value), torch.full((2, 1, 2, 2), -value))

    found = guided(both(1.0), both(2.0), 7.5)
    assert found.clean.unique().tolist() == [8.5]
    assert found.noise.unique().tolist() == [-8.5]
    assert guided(both(1.0), both(2.0), 1.0).clean.unique().tolist() == [2.0]


def test_noisy_steps_are_those_of_diffusers() -> None:
    theirs = DDIMScheduler(**SD)
    theirs.set_timesteps(10)
    torch.manual_seed(0)
    a = b = torch.randn(2, 4, 8, 8)
    for here, there in vp_path(theirs.alphas_cumprod.double(), 10).steps:
        eps, noise = torch.randn_like(a), torch.randn_like(a)
        guess = Guess.from_noise(a, eps, here)
        a = noisy_mean(guess, here, there) + noise_scale(here, there) * noise
        b = theirs.step(eps, int(here.time), b, eta=1.0, variance_noise=noise).prev_sample
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_named(steps: int) -> None:
    with pytest.raises(ValueError, match=r"method\.steps"):
        vp_path(torch.linspace(0.99, 0.01, 1000), steps)
    with pytest.raises(ValueError, match=r"method\.steps"):
        flow_path(0)
