"""Losses between an edit's activations and its source's: one term a file, and their sum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zerocon.core.registry import offer

if TYPE_CHECKING:
    from zerocon.losses.base import Losses, NoLosses
    from zerocon.losses.cross_attention import CrossAttention
    from zerocon.losses.patch_nce import PatchNCE
    from zerocon.losses.zecon import ZeCon

__all__ = ["CrossAttention", "Losses", "NoLosses", "PatchNCE", "ZeCon"]

__getattr__ = offer(
    __name__,
    loss={"Losses": "base", "NoLosses": "base"},
    loss_term={"CrossAttention": "cross_attention", "PatchNCE": "patch_nce", "ZeCon": "zecon"},
)
