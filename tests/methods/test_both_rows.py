"""Resetting the source branch, and moving the edit by the same correction."""

from __future__ import annotations

from dataclasses import replace as with_fields

import pytest

from tests.methods.edits import given, same
from tests.tiny import losses
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.inversions.direct import DirectInversion
from zerocon.methods.base import Method
from zerocon.methods.masactrl import MasaCtrl
from zerocon.methods.p2p import P2P
from zerocon.methods.zerocon import ZeroCon

METHODS: dict[str, Method] = {
    "p2p": P2P(steps=3, guidance=3.0),
    "masactrl": MasaCtrl(steps=3, guidance=3.0, first_step=1),
    "zerocon": ZeroCon(
        losses(xa_weight=0.0, weight=0.0), steps=3, guidance=3.0, source_guidance=3.0
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_an_edit_to_the_same_prompt_reconstructs(
    backbone: StableDiffusionBackbone, name: str
) -> None:
    method = METHODS[name]
    start = given(backbone, method, [0, 1], DirectInversion(moves="both"))
    words = [with_fields(w, target=w.source) for w in start.conditions.words]
    source = start.conditions.source
    start.conditions = with_fields(start.conditions, target=source, words=words)
    clean = start.trajectory.clean
    assert same(start.run(method), clean)
    # The source's row alone put back, the edit drifts off it, as guidance has it.
    start.trajectory = with_fields(start.trajectory, pulled=False)
    assert not same(start.run(method), clean, 1e-2)
