"""What every method costs on a U-Net: rows, passes, probabilities, and waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.marks import every, slow_but_for
from tests.methods.edits import Given, given
from tests.tiny import losses
from zerocon.backbones import unet_sites
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.bind import build
from zerocon.config.compose import compose_config, plain
from zerocon.config.places import CONF
from zerocon.config.settings import compose_settings
from zerocon.inversions.ddim import DDIMInversion
from zerocon.inversions.none import NoInversion
from zerocon.methods.base import Method
from zerocon.methods.zerocon import ZeroCon
from zerocon.runs.measuring import peak_bytes

STEPS = 4
METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))


@dataclass
class Spent:
    """Of one edit, without its inversion."""

    passes: int = 0
    forward: int = 0
    backward: int = 0
    probabilities: int = 0  # rows of attention probabilities, over all layers


# In four steps, for one case: passes, rows forward, rows back, rows of probabilities.
EXPECTED = {
    "cds": Spent(8, 20, 4, 0),
    "consistedit": Spent(8, 20, 0, 20),
    "dds": Spent(4, 16, 0, 0),
    "dnaedit": Spent(6, 9, 0, 0),
    "fireflow": Spent(4, 8, 0, 0),
    "flowalign": Spent(4, 12, 0, 0),
    "flowedit": Spent(3, 12, 0, 0),
    "ftedit": Spent(4, 16, 0, 0),
    "h_edit": Spent(8, 24, 0, 126),
    "infedit": Spent(4, 18, 0, 126),
    "kv_edit": Spent(4, 12, 0, 0),
    "kv_sharing": Spent(5, 9, 0, 0),
    "masactrl": Spent(4, 16, 0, 0),
    "p2p": Spent(4, 16, 0, 84),
    "pix2pix_zero": Spent(9, 24, 8, 256),
    "pnp": Spent(4, 12, 0, 0),
    "reconstruct": Spent(4, 4, 0, 0),
    "rf_inversion": Spent(4, 8, 0, 0),
    "rf_solver_edit": Spent(4, 8, 0, 0),
    "sdedit": Spent(3, 6, 0, 0),
    "turbo_edit": Spent(4, 8, 0, 0),
    "uniedit": Spent(2, 4, 0, 0),
    "word_swap": Spent(4, 8, 0, 0),
    "zerocon": Spent(9, 16, 4, 128),
    "zerocon_plus": Spent(9, 16, 4, 128),
}


def named(name: str, steps: int = STEPS) -> Method:
    overrides = [f"method={name}", "backbone=sd15", f"method.steps={steps}"]
    return compose_settings(overrides, worlds="any").method


def start(backbone: StableDiffusionBackbone, method: Method) -> Given:
    invert = DDIMInversion() if method.needs_inversion else NoInversion()
    return given(backbone, method, [0], invert)


def spent(
    backbone: StableDiffusionBackbone, edit: Given, method: Method, monkeypatch: pytest.MonkeyPatch
) -> Spent:
    found, before = Spent(), backbone.evaluations
    forward, backward = before.forward, before.backward
    predict, probabilities = backbone.predict, unet_sites._probabilities

    def counted_pass(*args: Any) -> Any:
        found.passes += 1
        return predict(*args)

    def counted_maps(attn: Any, queries: Tensor, keys: Tensor) -> Tensor:
        found.probabilities += len(queries)
        return probabilities(attn, queries, keys)

    monkeypatch.setattr(backbone, "predict", counted_pass)
    monkeypatch.setattr(unet_sites, "_probabilities", counted_maps)
    edit.run(method)
    monkeypatch.undo()
    found.forward = backbone.evaluations.forward - forward
    found.backward = backbone.evaluations.backward - backward
    return found


@pytest.mark.parametrize("name", every(3, METHODS))
def test_rows_passes_and_probabilities(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    method = named(name)
    assert spent(backbone, start(backbone, method), method, monkeypatch) == EXPECTED[name]


WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")


class Waiting(TorchDispatchMode):
    """Counts values of tensors that Python or a shape depends on: on a GPU these are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in WAITS
        return func(*args, **(kwargs or {}))


# Values per step of tensors that are on the host anyway, and so not waited for: the drawn time of
# an iteration and its level; before the first step, whether a step has words to edit.
ON_THE_HOST = {"cds": 2, "dds": 2, "h_edit": 1, "p2p": 1}


@pytest.mark.parametrize("name", slow_but_for(("zerocon", "pnp"), METHODS))
def test_no_step_waits_for_the_device(backbone: StableDiffusionBackbone, name: str) -> None:
    """With more steps a method must not wait more often."""
    waited: list[int] = []
    for steps in (2, 4):
        method = named(name, steps)
        edit = start(backbone, method)
        with Waiting() as waiting:
            edit.run(method)
        waited.append(waiting.count)
    assert waited[1] - waited[0] == 2 * ON_THE_HOST.get(name, 0)


# The same of an inversion's step, but for its level in the host's list. Null-text optimisation
# compares its loss with a threshold, for which a GPU is waited.
LEVEL = 1
INVERSIONS = (
    "ddim", "edit_friendly", "fireflow", "fixed_point", "h_edit", "negative_prompt", "none",
    "regularized", "rf_solver", "uni_inv",
)  # fmt: skip


@pytest.mark.parametrize("name", slow_but_for(("ddim", "regularized"), INVERSIONS))
def test_no_step_of_an_inversion_waits_for_the_device(
    backbone: StableDiffusionBackbone, name: str
) -> None:
    waited: list[int] = []
    for steps in (2, 4):
        config = plain(compose_config([f"inversion={name}", "backbone=sd15"]))
        inversion = build(config, "inversion")()
        with Waiting() as waiting:
            given(backbone, named("word_swap", steps), [0], inversion)
        waited.append(waiting.count)
    assert waited[1] - waited[0] == 2 * LEVEL


def test_waiting_is_noticed() -> None:
    x = torch.ones(2)
    with Waiting() as waiting:
        assert x.sum() > 1
        x.nonzero().sum().item()
    assert waiting.count == 3


def peak(backbone: StableDiffusionBackbone, method: Any) -> int:
    edit = start(backbone, method)
    return peak_bytes(torch.device("cpu"), lambda: edit.run(method))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"update": "per_branch", "source_guidance": 3.0}], ids=str)
def test_memory_of_guidance_does_not_grow_with_the_steps(
    backbone: StableDiffusionBackbone, changes: dict[str, Any]
) -> None:
    both = losses(weight=0.1, n_patches=16)
    few, many = (ZeroCon(both, steps=n, guidance=3.0, **changes) for n in (3, 12))
    assert peak(backbone, many) <= 1.01 * peak(backbone, few)
