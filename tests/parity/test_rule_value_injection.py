"""RF-Edit and FireFlow: the values of the inversion in the first steps of sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.marks import slow_but_for
from tests.parity.joint import KINDS, Control, Edits, Layer, Stream, agree, differ, edits
from zerocon.backbones.loading import Parts
from zerocon.inversions.by_solver import FireFlowInversion, RFSolverInversion, UniInversion
from zerocon.methods.value_injection import ValueInjection

W = 2.0
# The later attentions: their sites, and how a rule names them. As published on FLUX: of the blocks
# with one stream, the later part, image and text tokens alike.
LATE: dict[str, tuple[str, tuple[str, ...], int]] = {
    "sd3": ("joint.1.self,joint.2.self", ("joint",), 1),
    "sd35": ("joint.1.self,joint.2.self", ("joint",), 1),
    "flux": ("single.[12].*", ("single",), 1),
    "unet": ("self#6..15", ("self",), 6),
}
Kept = dict[tuple[Any, ...], list[Tensor]]


@pytest.fixture(scope="module", params=KINDS)
def both(
    request: pytest.FixtureRequest, parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Edits:
    return edits(request.param, parts, tmp_path_factory.mktemp("parity"))


class Injection(Control):
    """Keeps values under a name in the inversion, and gives them back under the same name."""

    def __init__(self, kind: str, kept: Kept, name: Any, *, keys: bool, give: bool) -> None:
        _, self.kinds, self.first = LATE[kind]
        self.kept, self.name, self.keys, self.give = kept, name, keys, give

    def streams(self, layer: Layer, image: Stream, text: Stream | None) -> None:
        if layer.kind not in self.kinds or layer.number < self.first:
            return
        streams = [image] if layer.kind != "single" or text is None else [image, text]
        name = (self.name, layer)
        if not self.give:
            self.kept[name] = [part for s in streams for part in (s.v, s.k)]
        elif name in self.kept:
            for number, stream in enumerate(streams):
                stream.v = self.kept[name][2 * number]
                if self.keys:
                    stream.k = self.kept[name][2 * number + 1]


@dataclass
class Rule:
    """`denoise` of the published code, with `inverse` (up) or without."""

    both: Edits
    solver: str
    inject: int
    steps: int
    keys: bool = False
    kept: Kept = field(default_factory=Kept)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        last = self.both.net.times(self.steps)[-1]
        z = self.both.clean / self.both.net.scale(last)
        z = self.walked(self.walked(z, up=True), up=False)
        return self.both.net.scale(last) * z

    def walked(self, z: Tensor, *, up: bool) -> Tensor:
        ts = self.both.net.times(self.steps)
        injected = [True] * self.inject + [False] * (self.steps - self.inject)
        if up:
            ts, injected = ts[::-1], injected[::-1]
        last: Tensor | None = None
        for (t, there), inside in zip(pairwise(ts), injected, strict=True):
            name = (there if up else t) if inside else None
            half = (there - t) / 2
            first = last if self.solver == "fireflow" else None
            if first is None:
                first = self.v(z, t, name, up=up, second=False)
            last = middle = self.v(z + half * first, t + half, name, up=up, second=True)
            if self.solver == "fireflow":
                z = z + (there - t) * middle
            else:
                slope = (middle - first) / half
                z = z + (there - t) * first + 0.5 * (there - t) ** 2 * slope
        return z

    def v(self, z: Tensor, t: float, name: float | None, *, up: bool, second: bool) -> Tensor:
        control = None
        if name is not None:
            control = Injection(
                self.both.kind, self.kept, (name, second), keys=self.keys, give=not up
            )
        text = self.both.conditions.source if up else self.both.conditions.target
        return self.both.guided(z, t, text, 1.0 if up else W, (control, control))


@pytest.mark.parametrize("inject", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("solver", slow_but_for(["fireflow"], ["rf_solver", "fireflow"]))
def test_values_of_inversion(both: Edits, solver: str, inject: int) -> None:
    inversion = {"rf_solver": RFSolverInversion(), "fireflow": FireFlowInversion()}[solver]
    ours = both.ours(ValueInjection(3, W, inject / 3, LATE[both.kind][0]), inversion)
    agree(ours, Rule(both, solver, inject, 3)())
    differ(ours, both.ours(ValueInjection(3, W, 0.0, LATE[both.kind][0]), inversion))


@pytest.mark.slow
def test_keys_as_well(both: Edits) -> None:
    method = ValueInjection(2, W, 0.5, LATE[both.kind][0], keys=True)
    ours = both.ours(method, RFSolverInversion())
    agree(ours, Rule(both, "rf_solver", 1, 2, keys=True)())
    without = both.ours(ValueInjection(2, W, 0.5, LATE[both.kind][0]), RFSolverInversion())
    differ(ours, without)


@torch.no_grad()
def test_other_inversions_give_the_values_of_their_latents(both: Edits) -> None:
    """Of one whose way back asks at the sampler's levels: those of the source there."""
    net, c, steps, w = both.net, both.conditions, 2, 1.0
    inversion = UniInversion()
    walked = inversion(both.backbone, both.clean, c, steps, both.draws).latents
    ts, kept = net.times(steps), Kept()
    source, z = walked[-1] / net.scale(ts[0]), walked[-1] / net.scale(ts[0])
    net.v(source, ts[0], c.source, 1.0, Injection(both.kind, kept, 0, keys=False, give=False))
    given = Injection(both.kind, kept, 0, keys=False, give=True)
    z = z + (ts[1] - ts[0]) * net.v(z, ts[0], c.target, w, given)
    z = net.scale(ts[2]) * (z + (ts[2] - ts[1]) * net.v(z, ts[1], c.target, w))
    agree(both.ours(ValueInjection(steps, w, 0.5, LATE[both.kind][0]), inversion), z)
