"""Samplers: from a trajectory and conditions to the edited latent. One file a paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.methods.cds import CDS
    from zerocon.methods.consistedit import ConsistEdit
    from zerocon.methods.ddim import DDIM
    from zerocon.methods.dds import DDS
    from zerocon.methods.dnaedit import DNAEdit
    from zerocon.methods.flowalign import FlowAlign
    from zerocon.methods.flowedit import FlowEdit
    from zerocon.methods.ftedit import FTEdit
    from zerocon.methods.h_edit import HEdit
    from zerocon.methods.infedit import InfEdit
    from zerocon.methods.kv_edit import KVEdit
    from zerocon.methods.masactrl import MasaCtrl
    from zerocon.methods.p2p import P2P
    from zerocon.methods.pnp import PnP
    from zerocon.methods.rf_inversion import RFInversionEdit
    from zerocon.methods.sdedit import SDEdit
    from zerocon.methods.turbo_edit import TurboEdit
    from zerocon.methods.uniedit import UniEdit
    from zerocon.methods.value_injection import ValueInjection
    from zerocon.methods.zerocon import ZeroCon

__all__ = [
    "CDS",
    "DDIM",
    "DDS",
    "P2P",
    "ConsistEdit",
    "DNAEdit",
    "FTEdit",
    "FlowAlign",
    "FlowEdit",
    "HEdit",
    "InfEdit",
    "KVEdit",
    "MasaCtrl",
    "PnP",
    "RFInversionEdit",
    "SDEdit",
    "TurboEdit",
    "UniEdit",
    "ValueInjection",
    "ZeroCon",
]

__getattr__ = offer(
    __name__,
    method={
        "CDS": "cds",
        "ConsistEdit": "consistedit",
        "DDIM": "ddim",
        "DDS": "dds",
        "DNAEdit": "dnaedit",
        "FlowAlign": "flowalign",
        "FlowEdit": "flowedit",
        "FTEdit": "ftedit",
        "HEdit": "h_edit",
        "InfEdit": "infedit",
        "KVEdit": "kv_edit",
        "MasaCtrl": "masactrl",
        "P2P": "p2p",
        "PnP": "pnp",
        "RFInversionEdit": "rf_inversion",
        "SDEdit": "sdedit",
        "UniEdit": "uniedit",
        "TurboEdit": "turbo_edit",
        "ValueInjection": "value_injection",
        "ZeroCon": "zerocon",
    },
)
