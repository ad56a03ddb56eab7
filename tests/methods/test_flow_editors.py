"""Each flow editor against its authors' update rule, on a flow model and on a diffusion model.

The rules are written here from the papers' algorithms and the published code, in the common
coordinate, with loops, levels and velocities of the test's own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.marks import every
from tests.methods.flow_models import Model, diffusion_model, flow_model, precise
from zerocon.backbones.loading import Parts
from zerocon.core.conditions import Condition, Conditions, Draws
from zerocon.core.levels import vp_level
from zerocon.inversions.by_solver import (
    FireFlowInversion,
    FixedPointInversion,
    RFSolverInversion,
    UniInversion,
)
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.inversions.rf_inversion import RFInversion
from zerocon.methods.base import Method
from zerocon.methods.ddim import DDIM
from zerocon.methods.dnaedit import DNAEdit
from zerocon.methods.flowalign import FlowAlign
from zerocon.methods.flowedit import FlowEdit
from zerocon.methods.rf_inversion import RFInversionEdit
from zerocon.methods.uniedit import UniEdit

DRAWS = Draws(3, ["a", "b"])
Noise = Callable[[str], Tensor]


@pytest.fixture(scope="module", params=["flow", "diffusion"])
def model(request: pytest.FixtureRequest, parts: Parts) -> Model:
    return flow_model() if request.param == "flow" else diffusion_model(precise(parts))


def conditions_of(model: Model) -> Conditions:
    return Conditions(*(model.backbone.embed(texts) for texts in model.prompts))


def picture(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, *model.size, dtype=torch.float64, generator=generator)


def edited(model: Model, method: Method, inversion: Any = None) -> Tensor:
    clean, conditions = picture(model), conditions_of(model)
    inversion = inversion or NoInversion()
    walk = inversion(model.backbone, clean, conditions, method.steps, DRAWS)
    return method(model.backbone, walk, conditions, DRAWS)


def noise_like(x: Tensor) -> Noise:
    return lambda purpose: DRAWS.normal_like(x, purpose)


def with_guidance(model: Model, z: Tensor, t: float, text: Condition, w: float) -> Tensor:
    negative = conditions_of(model).negative
    without = model.v(z, t, negative)
    return without + w * (model.v(z, t, text) - without)


def same(ours: Tensor, expected: Tensor) -> None:
    assert (ours - expected).abs().max() < 1e-9
    assert (expected - expected.roll(1, 0)).abs().max() > 1e-3


@torch.no_grad()
def flowedit(model: Model, ts: list[float], n_max: int, n_min: int, n_avg: int) -> Tensor:
    x, c = picture(model), conditions_of(model)
    noise, z, steps = noise_like(x), x.clone(), len(ts) - 1
    p = z
    for i, (t, t_next) in enumerate(pairwise(ts)):
        if steps - i > n_max:
            continue
        if steps - i > n_min:
            mean = torch.zeros_like(x)
            for k in range(n_avg):
                q = (1 - t) * x + t * noise(f"flowedit/{i}/{k}")
                v_target = with_guidance(model, z + q - x, t, c.target, 5.5)
                mean += (v_target - with_guidance(model, q, t, c.source, 1.5)) / n_avg
            z = z + (t_next - t) * mean
            continue
        if steps - i == n_min:
            q = (1 - t) * x + t * noise(f"flowedit/{i}/sampled")
            p = z + q - x
        p = p + (t_next - t) * with_guidance(model, p, t, c.target, 5.5)
    return model.scale(ts[-1]) * p if n_min else z


@pytest.mark.parametrize(("n_min", "n_avg"), every(2, [(0, 1), (0, 2), (2, 1)]))
def test_flowedit(model: Model, n_min: int, n_avg: int) -> None:
    ours = FlowEdit(
        steps=6,
        guidance=5.5,
        source_guidance=1.5,
        strength=4 / 6,
        sampled=n_min / 6,
        averages=n_avg,
    )
    same(edited(model, ours), flowedit(model, list(model.times(6)), 4, n_min, n_avg))


def test_flowedit_on_times_evenly_in_flow_time(model: Model) -> None:
    ours = FlowEdit(steps=6, guidance=5.5, source_guidance=1.5, strength=1.0, times="even")
    same(edited(model, ours), flowedit(model, model.even(6), 6, 0, 1))


@pytest.mark.parametrize("w", every(2, [7.5, 13.5]))
@torch.no_grad()
def test_flowalign(model: Model, w: float) -> None:
    x, c = picture(model), conditions_of(model)
    noise, z = noise_like(x), x.clone()
    for i, (t, t_next) in enumerate(pairwise(model.times(5))):
        q = (1 - t) * x + t * noise(f"flowalign/{i}")
        p = z + q - x
        v_source = model.v(p, t, c.source)
        vp = v_source + w * (model.v(p, t, c.target) - v_source)
        vq = model.v(q, t, c.source)
        z = z + (t_next - t) * (vp - vq) + 0.01 * ((q - t * vq) - (p - t * vp))
    same(edited(model, FlowAlign(steps=5, guidance=w)), z)


@torch.no_grad()
@pytest.mark.parametrize("make", [FlowEdit, FlowAlign, DNAEdit])
def test_a_share_of_the_steps_is_rounded(make: Any) -> None:
    """0.6 of 3 steps are 1.8: two."""
    model = flow_model()
    nearly, two, one = (edited(model, make(steps=3, strength=s)) for s in (0.6, 2 / 3, 1 / 3))
    assert torch.equal(nearly, two)
    assert not torch.equal(nearly, one)


@torch.no_grad()
def test_dnaedit(model: Model) -> None:
    x, c = picture(model), conditions_of(model)
    ts, skipped, mvg = list(model.times(6)), 2, 0.8
    n, last = noise_like(x)("dnaedit"), x.clone()
    stored: list[tuple[Tensor, Tensor]] = []
    for t, t_up in pairwise(ts[::-1][: len(ts) - skipped]):
        guess = (t_up - t) / (1 - t) * (n - last) + last
        v = with_guidance(model, guess, t_up, c.source, 1.5)
        delta = (guess - last) / (t_up - t) - v
        last = guess - delta * (t_up - t)
        n = n - delta * (1 - t)
        stored.append((delta * (t_up - t), v))
    z, reference = last, x.clone()
    for (t, t_next), (dx, v_source) in zip(pairwise(ts[skipped:]), stored[::-1], strict=True):
        v_target = with_guidance(model, z + dx, t, c.target, 3.5)
        reference = reference + (t_next - t) * (v_target - v_source)
        v = mvg * v_target + (1 - mvg) * (z - reference) / t
        z = z + (t_next - t) * v
    ours = DNAEdit(steps=6, guidance=3.5, source_guidance=1.5, mvg=mvg, strength=4 / 6)
    same(edited(model, ours), z)


@torch.no_grad()
def rf_inversion(model: Model, *, published: bool) -> Tensor:
    x, c = picture(model), conditions_of(model)
    ts, steps, gamma, eta = list(model.times(5)), 5, 0.5, 0.9
    x = x / model.scale(ts[-1])  # the latent is taken for that of the cleanest level
    y1, y = noise_like(x)("rf_inversion"), x.clone()
    for i in range(steps):
        if published:
            t, size = i / (steps + 1), ts[i] - ts[i + 1]
        else:
            t, size = ts[steps - i], ts[steps - 1 - i] - ts[steps - i]
        u = model.v(y, t, c.negative)
        y = y + size * (u + gamma * ((y1 - y) / (1 - t) - u))
    for i, (t, t_next) in enumerate(pairwise(ts)):
        v = with_guidance(model, y, t, c.target, 3.5)
        if 1 <= i < 3:
            v = v + eta * ((y - x) / t - v)
        y = y + (t_next - t) * v
    return model.scale(ts[-1]) * y


@pytest.mark.parametrize("schedule", ["path", "published"])
def test_rf_inversion(model: Model, schedule: Any) -> None:
    ours = RFInversionEdit(steps=5, start=0.2, stop=0.6)
    found = edited(model, ours, RFInversion(schedule=schedule))
    same(found, rf_inversion(model, published=schedule == "published"))


def start_of(model: Model, ts: list[float]) -> Tensor:
    """The picture at the cleanest level, in the common coordinate."""
    return picture(model) / model.scale(ts[-1])


@pytest.mark.parametrize(("mask", "zero_start"), [("absolute", False), ("signed", True)])
@torch.no_grad()
def test_uniedit(model: Model, mask: Any, *, zero_start: bool) -> None:
    c, omega, ts = conditions_of(model), 5.0, list(model.times(5))[2:]  # α = 0.6 of 5 steps
    z = start_of(model, ts)
    v = torch.zeros_like(z) if zero_start else model.v(z, ts[-1], c.negative)
    for t, t_up in pairwise(ts[::-1]):
        v = model.v(z + (t_up - t) * v, t_up, c.negative)
        z = z + (t_up - t) * v
    for t, t_next in pairwise(ts):
        v_source, v_target = model.v(z, t, c.source), model.v(z, t, c.target)
        d = v_target - v_source
        m = (d.abs() if mask == "absolute" else d).mean(1, keepdim=True)
        low, high = (f(m.flatten(1), 1).values[:, None, None, None] for f in (torch.min, torch.max))
        m = (m - low) / (high - low)
        z = z + (t_next - t) * (m * v_target + (1 - m) * v_source + omega * (1 + m) * d)
    inversion = UniInversion(prompt="empty", share=0.6, zero_start=zero_start)
    expected = model.scale(ts[-1]) * z
    same(edited(model, UniEdit(steps=5, mask=mask), inversion), expected)
    if not zero_start:  # the method's own share leaves out the steps that were inverted for nothing
        inversion = UniInversion(prompt="empty")
        same(edited(model, UniEdit(steps=5, mask=mask), inversion), expected)


@torch.no_grad()
def rf_solver(model: Model) -> Tensor:
    """The Taylor term of the published code, in both directions."""
    c, ts = conditions_of(model), list(model.times(4))
    z = start_of(model, ts)

    def step(z: Tensor, t: float, to: float, v: Callable[[Tensor, float], Tensor]) -> Tensor:
        first = v(z, t)
        middle = v(z + (to - t) / 2 * first, t + (to - t) / 2)
        slope = (middle - first) / ((to - t) / 2)
        return z + (to - t) * first + 0.5 * (to - t) ** 2 * slope

    for t, up in pairwise(ts[::-1]):
        z = step(z, t, up, lambda z, t: model.v(z, t, c.source))
    for t, down in pairwise(ts):
        z = step(z, t, down, lambda z, t: with_guidance(model, z, t, c.target, 2.0))
    return model.scale(ts[-1]) * z


@torch.no_grad()
def fireflow(model: Model) -> Tensor:
    c, ts = conditions_of(model), list(model.times(4))
    z = start_of(model, ts)

    def walk(z: Tensor, ts: list[float], v: Callable[[Tensor, float], Tensor]) -> Tensor:
        following = None
        for t, to in pairwise(ts):
            now = v(z, t) if following is None else following
            following = v(z + (to - t) / 2 * now, t + (to - t) / 2)
            z = z + (to - t) * following
        return z

    z = walk(z, ts[::-1], lambda z, t: model.v(z, t, c.source))
    z = walk(z, ts, lambda z, t: with_guidance(model, z, t, c.target, 2.0))
    return model.scale(ts[-1]) * z


@torch.no_grad()
def fixed_point(model: Model) -> Tensor:
    c, ts = conditions_of(model), list(model.times(4))
    z = start_of(model, ts)
    for t, up in pairwise(ts[::-1]):
        asked, found = z, list[Tensor]()
        for _ in range(3):
            found.append(with_guidance(model, asked, up, c.source, 1.5))
            asked = z + (up - t) * found[-1]
        z = z + (up - t) * sum(found) / 3
    for t, down in pairwise(ts):
        z = z + (down - t) * with_guidance(model, z, t, c.target, 2.0)
    return model.scale(ts[-1]) * z


@pytest.mark.parametrize(
    ("inversion", "rule"),
    every(
        2,
        [
            (RFSolverInversion(), rf_solver),
            (FireFlowInversion(), fireflow),
            (FixedPointInversion(guidance=1.5), fixed_point),
        ],
    ),
    ids=["rf_solver", "fireflow", "fixed_point"],
)
def test_inversions_by_solver(
    model: Model, inversion: Any, rule: Callable[[Model], Tensor]
) -> None:
    same(edited(model, DDIM(steps=4, guidance=2.0), inversion), rule(model))


def test_a_ddim_step_is_eulers_in_the_common_coordinate(parts: Parts) -> None:
    """Why flow editors run on diffusion models, written with ε and ā."""
    model = diffusion_model(precise(parts))
    backbone, c, z = model.backbone, conditions_of(model), picture(model)
    here, there = backbone.path(5).steps[1]
    eps = backbone.unet(z, here.time, c.source.tokens, return_dict=False)[0]
    a, s = here.signal, here.noise
    ddim = there.signal * (z - s * eps) / a + there.noise * eps
    t, to = (float(level.noise / (level.signal + level.noise)) for level in (here, there))
    euler = z / model.scale(t) + (to - t) * model.v(z / model.scale(t), t, c.source)
    torch.testing.assert_close(model.scale(to) * euler, ddim, rtol=0, atol=1e-9)
    assert vp_level(here.time, here.signal**2).t == pytest.approx(t)


def test_ddim_inversion_is_another_walk_than_euler(model: Model) -> None:
    """It evaluates at the next level; the solvers' inversions differ from it and each other."""
    method = DDIM(steps=4, guidance=2.0)
    inversions = [DDIMInversion(), RFSolverInversion(), FireFlowInversion(), UniInversion()]
    found = [edited(model, method, inversion) for inversion in inversions]
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(found) for b in found[:i])
