"""A case has the same edit alone and in batches of three and eight."""

from __future__ import annotations

import pytest
import torch

from tests.marks import slow_but_for
from tests.methods.edits import given
from tests.tiny import losses
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.inversions.edit_friendly import EditFriendlyInversion
from zerocon.inversions.turbo_edit import TurboEditInversion
from zerocon.methods.base import Method
from zerocon.methods.cds import CDS
from zerocon.methods.dds import DDS
from zerocon.methods.dnaedit import DNAEdit
from zerocon.methods.flowalign import FlowAlign
from zerocon.methods.flowedit import FlowEdit
from zerocon.methods.h_edit import HEdit
from zerocon.methods.infedit import InfEdit
from zerocon.methods.masactrl import MasaCtrl
from zerocon.methods.p2p import P2P
from zerocon.methods.pnp import PnP
from zerocon.methods.rf_inversion import RFInversionEdit
from zerocon.methods.turbo_edit import TurboEdit
from zerocon.methods.uniedit import UniEdit

CUT = losses(xa_weight=0.0, weight=3.0, query="reference", n_patches=16)
METHODS = [
    PnP(steps=2, guidance=3.0),
    P2P(steps=2, guidance=3.0, cross=0.8, blend_threshold=0.8, blend_start=0.5, blend_weight=2.0),
    P2P(steps=2, guidance=3.0, edit="replace", cross_words={"blue": [0.0, 1.0]}),
    MasaCtrl(steps=2, guidance=3.0, first_step=1),
    MasaCtrl(steps=2, guidance=3.0, first_step=0, masked=True, mask_threshold=0.5),
    DDS(steps=2, scale=200.0),
    CDS(steps=2, scale=200.0, loss=CUT),
    FlowEdit(steps=2, guidance=3.0, averages=2, times="even"),
    FlowAlign(steps=2, guidance=3.0, times="even"),
    DNAEdit(steps=3, guidance=3.0, times="even"),
    RFInversionEdit(steps=2, guidance=3.0, stop=1.0),
    UniEdit(steps=2, share=1.0),
    InfEdit(steps=3, blend_threshold=0.8, blend_spares=["gray"], spare_threshold=0.8),
    TurboEdit(steps=3),
    HEdit(steps=2, guidance=3.0, correction_guidance=2.0, blend_threshold=0.8, blend_start=0.5),
    HEdit(steps=2, guidance=3.0, corrections=2, cross=0, self_attention=0, local_blend=False),
]
# Of the methods whose own is not DDIM inversion, or none.
INVERSIONS = {
    TurboEdit: TurboEditInversion(),
    HEdit: EditFriendlyInversion(guidance=1.0, skip=0.0),
}


QUICK = METHODS[0], METHODS[1], METHODS[4], METHODS[7], METHODS[11]


@pytest.mark.parametrize("method", slow_but_for(QUICK, METHODS), ids=lambda m: type(m).__name__)
def test_cases_of_a_batch_are_independent(
    backbone: StableDiffusionBackbone, method: Method
) -> None:
    invert = INVERSIONS.get(type(method))
    eight = given(backbone, method, range(8), invert).run(method)
    three = given(backbone, method, [4, 1, 0], invert).run(method)
    alone = given(backbone, method, [1], invert).run(method)
    torch.testing.assert_close(three, eight[[4, 1, 0]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone, three[1:2], rtol=1e-4, atol=1e-4)
