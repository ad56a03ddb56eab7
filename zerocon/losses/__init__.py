"""Losses between an edit's activations and its source's: one term a file, and their sum."""

from zerocon.losses.base import Losses, NoLosses
from zerocon.losses.cross_attention import CrossAttention
from zerocon.losses.patch_nce import PatchNCE

__all__ = ["CrossAttention", "Losses", "NoLosses", "PatchNCE"]
