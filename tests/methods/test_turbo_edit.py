"""TurboEdit against its authors' rule, and the guarantees of its noise maps."""

from __future__ import annotations

import copy
from dataclasses import replace as with_fields

import pytest
import torch
from torch import Tensor

from tests.marks import every
from tests.methods.edits import Given, given
from tests.methods.published import in_double
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.core.checks import ConfigError
from zerocon.inversions.base import Trajectory
from zerocon.inversions.turbo_edit import TurboEditInversion
from zerocon.methods.ddim import DDIM
from zerocon.methods.turbo_edit import TurboEdit

METHOD = TurboEdit(steps=5, guidance=1.5)
SMALL = 0.05  # of what the last step adds, so that it is cut


@pytest.fixture(scope="module")
def double(parts: Parts) -> StableDiffusionBackbone:
    """With SDXL-Turbo's times."""
    ours = copy.deepcopy(parts)
    ours.scheduler.register_to_config(timestep_spacing="trailing")
    return in_double(ours)


def mean_of(eps: Tensor, x: Tensor, alpha: float, alpha_prev: float) -> Tensor:
    """DDPM's posterior mean, formula (7) of its paper."""
    current = alpha / alpha_prev
    clean = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
    of_clean = alpha_prev**0.5 * (1 - current) / (1 - alpha)
    of_x = current**0.5 * (1 - alpha_prev) / (1 - alpha)
    return of_clean * clean + of_x * x


def published(
    backbone: StableDiffusionBackbone,
    given_: Given,
    row: int,
    times: list[int],
    noise_times: list[int],
    w: float,
    max_norm: float,
) -> Tensor:
    """The authors' loop for one picture: three rows, of which the second follows the third."""
    alphas = backbone._alphas.tolist()
    clean = given_.trajectory.clean[row : row + 1]
    texts = given_.conditions
    source, target = (c.tokens[row : row + 1] for c in (texts.source, texts.target))
    x_ts: list[Tensor] = []
    for number, time in enumerate(noise_times):
        noise = given_.draws.normal_like(given_.trajectory.clean, f"turbo_edit/{number}")
        noisy = alphas[time] ** 0.5 * clean + (1 - alphas[time]) ** 0.5 * noise[row : row + 1]
        x_ts.append(noisy if time > 0 else clean)
    x_ts.append(clean)
    edited = x_ts[0]
    for i, time in enumerate(times):
        alpha_prev = alphas[times[i + 1]] if i + 1 < len(times) else 1.0
        latents, prompts = torch.cat([x_ts[i], edited, edited]), torch.cat([source, source, target])
        eps = backbone.unet(latents, time, prompts, return_dict=False)[0]
        predicted, hat, hat_target = (
            mean_of(e, x, alphas[time], alpha_prev)
            for e, x in zip(eps.split(1), latents.split(1), strict=True)
        )
        z = x_ts[i + 1] - predicted
        coeff = 1.0
        if i == len(times) - 1 and z.norm() >= max_norm:
            coeff = float(max_norm / z.norm())
        cross_trajectory = hat - coeff * predicted
        edited = coeff * x_ts[i + 1] + cross_trajectory + w * (hat_target - hat)
    return edited


@pytest.mark.parametrize("last_rms", every(2, [SMALL, 1e9]))
@pytest.mark.parametrize(
    ("invert", "steps", "times", "noise_times"),
    [
        (TurboEditInversion(), 5, [799, 599, 399, 199], [599, 399, 199, -1]),
        (
            TurboEditInversion(skip=0.0, times=[799, 499, 199], shift=0.6667),
            3,
            [799, 499, 199],
            [599, 299, 0],
        ),
    ],
    ids=["4 steps", "3 steps"],
)
@torch.no_grad()
def test_agrees_with_the_authors_rule(
    double: StableDiffusionBackbone,
    invert: TurboEditInversion,
    steps: int,
    times: list[int],
    noise_times: list[int],
    last_rms: float,
) -> None:
    method = with_fields(METHOD, steps=steps)
    begun = given(double, method, [0, 1], with_fields(invert, last_rms=last_rms))
    assert [level.time for level in begun.trajectory.path.levels] == [*times, 0]
    ours = begun.run(method)
    norm = last_rms * (4 * 16 * 16) ** 0.5
    for row in range(2):
        theirs = published(double, begun, row, times, noise_times, 1.5, norm)
        torch.testing.assert_close(ours[row : row + 1], theirs, rtol=0, atol=1e-9)


def test_the_source_prompt_returns_to_the_picture_unless_the_last_step_is_cut(
    double: StableDiffusionBackbone,
) -> None:
    back = DDIM(steps=5, guidance=1.0, prompt="source")
    whole = given(double, METHOD, [0, 1], TurboEditInversion(last_rms=None))
    torch.testing.assert_close(whole.run(back), whole.trajectory.clean, rtol=0, atol=1e-9)
    cut = given(double, METHOD, [0, 1], TurboEditInversion(last_rms=SMALL))
    off = (cut.run(back) - cut.trajectory.clean).square().mean((1, 2, 3)).sqrt()
    assert off.min() > 0.01
    assert cut.trajectory.residuals is not None
    sizes = cut.trajectory.residuals[-1].square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(sizes, torch.full_like(sizes, SMALL))


def test_guidance_one_is_the_target_prompt_alone(double: StableDiffusionBackbone) -> None:
    begun = given(double, METHOD, [0, 1], TurboEditInversion())
    ours = begun.run(with_fields(METHOD, guidance=1.0))
    theirs = begun.run(DDIM(steps=5, guidance=1.0))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_rows_through_the_network(double: StableDiffusionBackbone) -> None:
    """Of the three published rows per step, the trajectory's row is part of the inversion here."""
    before = double.evaluations.forward
    begun = given(double, METHOD, [0, 1], TurboEditInversion())
    inverted = double.evaluations.forward
    begun.run(METHOD)
    cases = 2
    assert (inverted - before) / cases == 4
    assert (double.evaluations.forward - inverted) / cases == 2 * 4


def test_a_stored_trajectory_keeps_what_its_steps_add(double: StableDiffusionBackbone) -> None:
    walk = given(double, METHOD, [0, 1], TurboEditInversion()).trajectory
    again = Trajectory.restored(*walk.stored())
    assert again.noisy
    assert again.path == walk.path
    assert walk.residuals is not None
    assert torch.equal(again.residuals, walk.residuals)  # pyright: ignore[reportArgumentType]


def test_settings_are_checked() -> None:
    with pytest.raises(
        ConfigError, match=r"inversion.times is \[199, 499\]; give timesteps between"
    ):
        TurboEditInversion(skip=0.0, times=[199, 499])
    with pytest.raises(ConfigError, match=r"inversion.skip=0"):
        TurboEditInversion(times=[799, 199])
    with pytest.raises(ConfigError, match="leaves no step"):
        TurboEditInversion(skip=1.0)
