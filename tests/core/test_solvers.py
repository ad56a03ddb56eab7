"""Each solver's steps by hand, its order, its number of evaluations, and its way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from zerocon.core.levels import Guess, Level, Path, flow_level, flow_path, vp_level_at
from zerocon.core.sampling import Branches, Guesses, Solver
from zerocon.core.solvers import Corrector, Euler, FireFlow, FixedPoint, Midpoint

ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2).cumprod(0)
Make = Callable[[Path, tuple[Level, ...]], Solver]
SOLVERS: dict[str, Make] = {
    "euler": lambda path, _middles: Euler(path),
    "midpoint": Midpoint,
    "fireflow": FireFlow,
    "corrector": lambda path, _middles: Corrector(path),
    "fixed point": lambda path, _middles: FixedPoint(path),
}


def velocity(z: Tensor, t: float) -> Tensor:
    return torch.sin(2 * z + 3 * t) + 0.5 * z.roll(1, -1)


@dataclass
class Field:
    """A network with a given velocity in the common coordinate; records its evaluations."""

    asked: list[float] = field(default_factory=list[float])

    def __call__(self, z: Branches, level: Level) -> Guesses:
        self.asked.append(level.t)
        return {
            name: Guess.along(latent, velocity(latent / level.scale, level.t), level)
            for name, latent in z.items()
            if name != "kept"
        }


def level_at(t: float, *, flow: bool) -> Level:
    return flow_level(t) if flow else vp_level_at(ALPHAS, t)


def walked(
    name: str, steps: int, *, flow: bool, up: bool = False, z: Tensor | None = None
) -> tuple[Tensor, Field]:
    """Solve in the common coordinate from t = 0.9 to 0.1 (`up`: in reverse)."""
    times = [0.9 - 0.8 * i / steps for i in range(steps + 1)]
    times = times[::-1] if up else times
    path = Path(tuple(level_at(t, flow=flow) for t in times))
    middles = tuple(level_at((a + b) / 2, flow=flow) for a, b in pairwise(times))
    solver, found = SOLVERS[name](path, middles), Field()
    start = torch.linspace(-1, 1, 5).double()[None] if z is None else z
    branches = {"edit": path.levels[0].scale * start, "kept": start}
    for i in range(steps):
        branches = solver.step(i, branches, found)
    assert branches["kept"] is start  # a branch that is not evaluated stays
    return branches["edit"] / path.levels[-1].scale, found


@pytest.mark.parametrize("name", SOLVERS)
def test_a_diffusion_model_in_the_common_coordinate_is_a_flow_model(name: str) -> None:
    flow, diffusion = (walked(name, 6, flow=flow)[0] for flow in (True, False))
    torch.testing.assert_close(diffusion, flow, rtol=0, atol=1e-12)


def test_two_steps_of_each_by_hand() -> None:
    z, (a, b, c) = torch.linspace(-1, 1, 5).double()[None], (0.9, 0.5, 0.1)
    d = -0.4
    v1 = velocity(z + d / 2 * velocity(z, a), 0.7)
    first = z + d * v1
    v2 = velocity(first + d / 2 * velocity(first, b), 0.3)
    expected = {"midpoint": first + d * v2}
    expected["fireflow"] = first + d * velocity(first + d / 2 * v1, 0.3)
    v1 = velocity(z + d * velocity(z, a), b)
    first = z + d * v1
    expected["corrector"] = first + d * velocity(first + d * v1, c)
    for there in (b, c):
        one = velocity(z, there)
        two = velocity(z + d * one, there)
        three = velocity(z + d * two, there)
        z = z + d * (one + two + three) / 3
    expected["fixed point"] = z
    for name, latent in expected.items():
        torch.testing.assert_close(walked(name, 2, flow=True)[0], latent, rtol=0, atol=1e-12)


def test_number_and_levels_of_evaluations() -> None:
    asked = {name: [round(t, 3) for t in walked(name, 4, flow=True)[1].asked] for name in SOLVERS}
    assert asked["euler"] == [0.9, 0.7, 0.5, 0.3]
    assert asked["midpoint"] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert asked["fireflow"] == [0.9, 0.8, 0.6, 0.4, 0.2]
    assert asked["corrector"] == [0.9, 0.7, 0.5, 0.3, 0.1]
    assert asked["fixed point"] == [t for t in (0.7, 0.5, 0.3, 0.1) for _ in range(3)]


def test_zero_start_of_uni_inv_starts_from_the_latent() -> None:
    found = Field()
    path = Path((flow_level(0.1), flow_level(0.5)))
    z = {"edit": torch.ones(1, 3).double()}
    after = Corrector(path, zero_start=True).step(0, z, found)["edit"]
    assert found.asked == [0.5]
    torch.testing.assert_close(after, z["edit"] + 0.4 * velocity(z["edit"], 0.5))


@pytest.fixture(scope="module")
def exact() -> Tensor:
    """To a hundredth of the error that a solver of second order leaves in 80 steps."""
    return walked("midpoint", 800, flow=False)[0]


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2), ("fireflow", 2)])
def test_order_of_the_error(exact: Tensor, name: str, order: int) -> None:
    """Halving the steps halves or quarters the error."""
    coarse, fine = ((walked(name, n, flow=False)[0] - exact).norm() for n in (40, 80))
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


def test_sampling_returns_to_the_start() -> None:
    """The error after inversion and sampling, each with its paper's sampler."""
    back = {"euler": "euler", "midpoint": "midpoint", "fireflow": "fireflow"}
    back |= {"corrector": "euler", "fixed point": "euler"}
    lost: dict[str, float] = {}
    for name, way_back in back.items():
        start, _ = walked("midpoint", 100, flow=False)  # some picture
        noise, _ = walked(name, 12, flow=False, up=True, z=start)
        again, _ = walked(way_back, 12, flow=False, z=noise)
        lost[name] = float((again - start).norm() / start.norm())
    assert all(lost[name] < 0.25 * lost["euler"] for name in back if name != "euler"), lost


def test_flow_paths_have_their_shift_in_the_common_coordinate() -> None:
    path = flow_path(4, shift=3.0)
    assert [level.t for level in path.levels] == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    assert all(level.scale == pytest.approx(1) for level in path.levels)
