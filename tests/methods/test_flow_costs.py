"""Rows through the network for one edit at the published settings, counted on a stub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from tests.methods.flow_models import CurvedFlow
from tests.tiny_transformers import tiny_sd3, tiny_sd3_parts
from zerocon.config.settings import compose_settings
from zerocon.core.conditions import Condition
from zerocon.core.size import Size
from zerocon.runs.counting import Rows, count_rows


@dataclass
class Stub(CurvedFlow):
    """A flow model for any text that counts evaluations as backbones do."""

    size: ClassVar[Size] = Size.square(4)  # type: ignore[misc]

    def encode(self, images: Tensor) -> Tensor:
        return images.mean(1, keepdim=True).expand(-1, 4, -1, -1).to(self.dtype)

    def embed(self, prompts: list[str]) -> Condition:
        texts = torch.tensor([float(len(p) % 5) for p in prompts]).double()
        return Condition(texts[:, None, None].expand(-1, 77, 4).clone())


def cost(*overrides: str, told: bool = False) -> Rows:
    """`told`: for a model with embedded guidance, such as FLUX.1-dev."""
    settings = compose_settings(list(overrides), worlds="edit")
    return count_rows(settings, Stub(guidance_is_told=told))


SD3 = {
    "flowedit_published_sd3": 132,
    "flowalign_published_sd3": 99,
    "uniedit_published_sd3": 28,
    "dnaedit_published_sd3": 81,
}
FLUX = {
    "flowedit_published_flux": 48,
    "dnaedit_published_flux": 48,
    "rf_inversion_published_flux": 56,
    "uniedit_published_flux": 28,
}


@pytest.mark.parametrize("name", SD3)
def test_published_on_classifier_free_guidance(name: str) -> None:
    assert cost(f"+experiment={name}").edit == SD3[name]


@pytest.mark.parametrize("name", FLUX)
def test_published_on_a_model_that_is_told_its_guidance(name: str) -> None:
    assert cost(f"+experiment={name}", told=True).edit == FLUX[name]


@pytest.mark.parametrize(
    ("inversion", "steps", "guidance", "rows"),
    [
        ("rf_solver", 15, 2.0, 60),  # as FireFlow's paper counts it; at its own 25 steps:
        ("rf_solver", 25, 2.0, 100),
        ("fireflow", 8, 2.0, 18),
        ("uni_inv", 15, 1.0, 31),
    ],
)
def test_solvers_on_a_model_that_is_told_its_guidance(
    inversion: str, steps: int, guidance: float, rows: int
) -> None:
    settings = ["method=word_swap", f"method.steps={steps}", f"method.guidance={guidance}"]
    assert cost(f"inversion={inversion}", *settings, told=True).edit == rows


@pytest.mark.parametrize(
    ("name", "rows", "again"),
    [("rf_solver_edit_published_flux", 100, 2 * 3), ("fireflow_published_flux", 18, 1)],
)
def test_values_of_inversion_cost_what_is_evaluated_again(name: str, rows: int, again: int) -> None:
    """The published code keeps them in memory; without any it costs as much here."""
    own = [f"+experiment={name}", "method.sites=self"]
    assert cost(*own, told=True).edit == rows + again
    assert cost(*own, "method.inject=0", told=True).edit == rows


def test_kv_edit() -> None:
    """The published code keeps the source's keys and values; here its row runs again."""
    assert cost("+experiment=kv_edit_published_flux", told=True).edit == 48 + 24


def test_ftedit() -> None:
    """Source and edit, both guided. The published code passes the negative rows of its inversion,
    too, though their weight is 0 at guidance 1; here they only pass at another guidance."""
    own = ["+experiment=ftedit_published_sd35", "method.text_sites=cross"]
    own += ["method.value_sites=self"]
    assert cost(*own).edit == 3 * 30 + 4 * 30
    walk = ["inversion=fixed_point", "inversion.guidance=1.5"]
    rows = ["method=masactrl", "method.sites=self", "method.steps=30", "method.guidance=2"]
    assert cost(*walk, *rows).edit == 300


def test_consistedit(tmp_path: Path) -> None:
    """Uni-Inv's evaluations, a pass at each level for the mask, and source and edit unguided."""
    own = "+experiment=consistedit_published_sd3"
    assert cost(own, "method.masked=false").edit == 29 + 2 * 28
    few = compose_settings(
        [own, "backbone=sd3", "method.steps=3", "method.sites=joint.*.self"], worlds="any"
    )
    backbone = tiny_sd3(tiny_sd3_parts(tmp_path))
    assert count_rows(few, backbone).edit == 4 + 3 + 2 * 3


def test_sampled_steps_and_averages_of_flowedit() -> None:
    few = ["method=flowedit", "method.steps=10", "method.strength=0.6", "method.sampled=0.2"]
    assert cost(*few, "method.averages=3", "method.source_guidance=2").edit == 4 * 3 * 4 + 2 * 2
    assert cost(*few, "method.guidance=1", "method.source_guidance=1").edit == 4 * 2 + 2
    assert cost("method=flowedit", "method.strength=0").edit == 0
