"""A flow model in miniature goes through the methods without a special case.

Its network knows one pair of clean latent and noise for each text and answers `noise - clean`,
so an exact solver ends at the clean latent of the text that it sampled under.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
import torch
from torch import Tensor

from tests.tiny import losses
from zerocon.core.conditions import Condition, Conditions, Draws, Words
from zerocon.core.forward import Evaluations
from zerocon.core.levels import At, Guess, Level, Path, flow_level, flow_path
from zerocon.core.size import Size
from zerocon.core.taps import Site, Taps
from zerocon.inversions.by_solver import (
    FireFlowInversion,
    FixedPointInversion,
    RFSolverInversion,
    UniInversion,
)
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.direct import DirectInversion
from zerocon.inversions.negative_prompt import NegativePromptInversion
from zerocon.inversions.none import NoInversion
from zerocon.methods.base import Method
from zerocon.methods.ddim import DDIM
from zerocon.methods.dds import DDS
from zerocon.methods.h_edit import HEdit
from zerocon.methods.infedit import InfEdit
from zerocon.methods.masactrl import MasaCtrl
from zerocon.methods.p2p import P2P
from zerocon.methods.pnp import PnP
from zerocon.methods.sdedit import SDEdit
from zerocon.methods.zerocon import ZeroCon

SITES = (
    Site("block.0.self", "self", 1, 0, (4, 4)),
    Site("block.0.cross", "cross", 1, 0, (4, 4)),
    Site("block.0.res", "res", 1, 0, (4, 4)),
)
NOISE = torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def clean_of(text: float) -> Tensor:
    generator = torch.Generator().manual_seed(int(10 * text) + 5)
    return torch.randn(1, 4, 4, 4, dtype=torch.float64, generator=generator)


@dataclass
class TinyFlow:
    """A text's condition is one number in every token; predictions depend slightly on `z`."""

    exact: bool = True
    name: str = "tiny flow"
    fingerprint: str = "tiny"
    size: Size = Size(4, 4)  # noqa: RUF009
    prompt_tokens: int = 77
    start_tokens: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float64
    taps: Taps = field(default_factory=lambda: Taps(SITES))
    evaluations: Evaluations = field(default_factory=Evaluations)
    times: list[float] = field(default_factory=list[float])

    def path(self, steps: int) -> Path:
        return flow_path(steps, shift=3.0)

    def level(self, share: float) -> Level:
        return flow_level(share)

    def level_at(self, t: float) -> Level:
        return flow_level(t)

    def tokens(self, prompt: str) -> tuple[int, ...]:
        return (1, *(len(word) for word in prompt.split()), 2)

    def embed(self, prompts: list[str]) -> Condition:
        texts = torch.tensor([{"": 0.0, "cat": 1.0, "dog": 2.0}[p] for p in prompts])
        return Condition(texts.double()[:, None, None].expand(-1, 77, 4).clone())

    def predict(self, z: Tensor, level: At, condition: Condition) -> Guess:
        if isinstance(level, Level):  # not the rows of two steps in one pass
            self.times.append(level.time)
        if self.exact:
            texts = condition.tokens[:, 0, 0].detach().tolist()
            velocity = torch.cat([NOISE - clean_of(text) for text in texts])
        else:
            velocity = z * 0.1 + condition.tokens.mean((1, 2))[:, None, None, None]
        with self.taps.forward_pass():
            velocity = self._tapped(velocity, z, condition)
        return Guess.from_velocity(z, velocity, level)

    def _tapped(self, velocity: Tensor, z: Tensor, condition: Condition) -> Tensor:
        """Pass activations that depend on the latent through all sites, and add a small part."""
        taps, total = self.taps, velocity
        positions = z.flatten(2).transpose(1, 2)[:, None]  # [row, head, position, width]
        for site in SITES[:2]:
            if site.kind == "self":
                keys = positions
            else:
                keys = taps.through(site, "text", condition.tokens)[:, None]
            queries = taps.through(site, "queries", positions)
            keys = taps.through(site, "keys", keys)
            values = taps.through(site, "values", keys)
            probs = taps.through(site, "probs", (queries @ keys.transpose(-1, -2)).softmax(-1))
            out = taps.through(site, "output", (probs @ values)[:, 0])
            total = total + 1e-12 * out.transpose(1, 2).unflatten(2, (4, 4))
        return total + 1e-12 * taps.through(SITES[2], "features", z)


def conditions(flow: TinyFlow) -> Conditions:
    words = Words(flow.tokens("cat"), flow.tokens("dog"))
    return Conditions(flow.embed(["cat"]), flow.embed(["dog"]), flow.embed([""]), [words])


def run(method: Method, inversion: object = None, *, exact: bool = True, steps: int = 6) -> Tensor:
    flow = TinyFlow(exact)
    draws = Draws(0, ["a"])
    invert = inversion or DDIMInversion()
    trajectory = invert(flow, clean_of(1.0), conditions(flow), steps, draws)
    edited = method(flow, trajectory, conditions(flow), draws)
    assert edited.isfinite().all()
    return edited


def test_inversion_finds_the_noise() -> None:
    flow = TinyFlow()
    walk = DDIMInversion()(flow, clean_of(1.0), conditions(flow), 6, Draws(0, ["a"]))
    torch.testing.assert_close(walk.start, NOISE, rtol=0, atol=1e-9)
    # As for diffusion models, the network gets the noisier of the two times.
    assert flow.times == [level.time for level in flow_path(6, shift=3.0).levels[-2::-1]]
    assert flow.times[-1] == 1000


METHODS: dict[str, Method] = {
    "word swap": DDIM(steps=6, guidance=1.0),
    "pnp": PnP(steps=6, guidance=1.0, attention_sites="self", feature_sites="res"),
    "pnp replayed": PnP(
        steps=6, guidance=1.0, attention_sites="self", feature_sites="res", source="replayed"
    ),
    "p2p": P2P(steps=6, guidance=1.0, self_sites="self", blend_sites="cross"),
    "masactrl": MasaCtrl(steps=6, guidance=1.0, sites="self", mask_sites="cross"),
    "zerocon": ZeroCon(losses(xa_weight=1e-9, cut_weight=1e-9, cut_sites="self"), 6, guidance=1.0),
    "zerocon kept": ZeroCon(
        losses(xa_weight=1e-9, cut_weight=1e-9, cut_sites="self"), 6, 1.0, reevaluate=False
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_end_at_the_target_text(name: str) -> None:
    torch.testing.assert_close(run(METHODS[name]), clean_of(2.0), rtol=0, atol=1e-6)


def test_sdedit_starts_from_its_own_noise() -> None:
    edited = run(SDEdit(steps=6, guidance=1.0, strength=1.0))
    drawn = Draws(0, ["a"]).normal_like(NOISE, "sdedit")
    torch.testing.assert_close(edited, clean_of(2.0) + drawn - NOISE, rtol=0, atol=1e-6)


def test_infedit_subtracts_the_sources_error() -> None:
    method = InfEdit(steps=6, guidance=1.0, blend_sites="cross")
    edited = run(method, NoInversion())
    torch.testing.assert_close(edited, clean_of(2.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["implicit", "explicit"])
def test_h_edit_leads_from_text_to_text(form: Literal["implicit", "explicit"]) -> None:
    """Each step's correction is the difference of the texts' velocities."""
    method = HEdit(
        steps=6, guidance=1.0, correction_guidance=1.0, form=form, self_sites="self",
        blend_sites="cross",
    )  # fmt: skip
    edited = run(method, DirectInversion(moves="both"))
    torch.testing.assert_close(edited, clean_of(2.0), rtol=0, atol=1e-6)


def test_guidance_and_reconstruction() -> None:
    back = run(DDIM(steps=6, guidance=1.0, prompt="source"))
    torch.testing.assert_close(back, clean_of(1.0), rtol=0, atol=1e-9)
    guided = run(DDIM(steps=6, guidance=3.0))
    expected = clean_of(0.0) + 3.0 * (clean_of(2.0) - clean_of(0.0))
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-6)


SOLVERS = [RFSolverInversion(), FireFlowInversion(), UniInversion(), FixedPointInversion()]


@pytest.mark.parametrize("inversion", SOLVERS, ids=lambda i: type(i).__name__)
@pytest.mark.parametrize("name", METHODS)
def test_solvers_with_several_evaluations_end_there_too(name: str, inversion: object) -> None:
    edited = run(METHODS[name], inversion)
    torch.testing.assert_close(edited, clean_of(2.0), rtol=0, atol=1e-6)


def test_zerocon_on_midpoints_by_hand() -> None:
    """The losses move the latent once per step, before the first evaluation."""
    strong = ZeroCon(losses(xa_weight=0.0, cut_weight=0.05, cut_sites="self"), 1, guidance=1.0)
    flow = TinyFlow(exact=False)
    draws, texts = Draws(0, ["a"]), conditions(flow)
    walk = RFSolverInversion()(flow, clean_of(1.0), texts, 1, draws)
    seen: list[Tensor] = []

    def spied(z: Tensor, level: Level, condition: Condition) -> Guess:
        found = TinyFlow.predict(flow, z, level, condition)
        seen.append(z.detach())
        return found

    flow.predict = spied  # type: ignore[method-assign]
    edited = strong(flow, walk, texts, draws)
    source, first, middle = seen  # the reference and two evaluations; the losses' pass ends early
    descended = first[-1:]  # the row under the target prompt, after the one under the empty prompt
    assert (descended - source).abs().max() > 1e-3

    def velocity(z: Tensor) -> Tensor:
        return z * 0.1 + texts.target.tokens.mean()

    half = descended - 0.5 * velocity(descended)
    torch.testing.assert_close(middle[1:2], half, rtol=0, atol=1e-6)
    torch.testing.assert_close(edited, descended - velocity(half), rtol=0, atol=1e-6)


@pytest.mark.parametrize("inversion", [DirectInversion(), NegativePromptInversion(proximal=0.5)])
@pytest.mark.parametrize("name", METHODS)
def test_other_inversions_work_with_flow_models(name: str, inversion: object) -> None:
    run(METHODS[name], inversion, exact=False)


def test_zerocon_moves_down_its_losses() -> None:
    """Strong losses move the latent even if the edit changes nothing."""
    strong = ZeroCon(losses(xa_weight=0.0, cut_weight=0.05, cut_sites="self"), 6, guidance=1.0)
    still = run(METHODS["zerocon"], exact=False)
    assert (run(strong, exact=False) - still).abs().max() > 1e-3


def test_delta_denoising_goes_from_one_text_to_the_other() -> None:
    method = DDS(steps=40, guidance=1.0, scale=16.0, learning_rate=0.1)
    start, end = clean_of(1.0), clean_of(2.0)
    edited = run(method, exact=True)
    assert (edited - end).norm() < 0.9 * (start - end).norm()
