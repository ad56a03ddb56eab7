"""Samplers: from a trajectory and conditions to the edited latent. One file a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.methods.cds import CDS
    from zerocon.methods.ddim import DDIM
    from zerocon.methods.dds import DDS
    from zerocon.methods.h_edit import HEdit
    from zerocon.methods.infedit import InfEdit
    from zerocon.methods.masactrl import MasaCtrl
    from zerocon.methods.p2p import P2P
    from zerocon.methods.pnp import PnP
    from zerocon.methods.sdedit import SDEdit
    from zerocon.methods.turbo_edit import TurboEdit
    from zerocon.methods.zerocon import ZeroCon

__all__ = [
    "CDS",
    "DDIM",
    "DDS",
    "P2P",
    "HEdit",
    "InfEdit",
    "MasaCtrl",
    "PnP",
    "SDEdit",
    "TurboEdit",
    "ZeroCon",
]

__getattr__ = offer(
    __name__,
    method={
        "CDS": "cds",
        "DDIM": "ddim",
        "DDS": "dds",
        "HEdit": "h_edit",
        "InfEdit": "infedit",
        "MasaCtrl": "masactrl",
        "P2P": "p2p",
        "PnP": "pnp",
        "SDEdit": "sdedit",
        "TurboEdit": "turbo_edit",
        "ZeroCon": "zerocon",
    },
)
