"""Configs as earlier versions stored them, brought to the form of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOSSES = "zerocon.losses.Losses"
TERMS = {"xa": "zerocon.losses.CrossAttention", "cut": "zerocon.losses.PatchNCE"}


def brought_up(config: Mapping[str, Any]) -> dict[str, Any]:
    """The losses were one class with all settings side by side; now each is a term of its own."""
    loss = config.get("loss")
    if not isinstance(loss, dict) or loss.get("_target_") != LOSSES or "xa_sites" not in loss:
        return dict(config)
    flat = {key: value for key, value in loss.items() if key != "_target_"}
    terms: dict[str, Any] = {name: {"_target_": target} for name, target in TERMS.items()}
    for key, value in flat.items():
        name, _, field = key.partition("_")
        if name in terms:
            terms[name][field] = value
        else:  # all that had no prefix was the contrastive loss's
            terms["cut"][key] = value
    return {**config, "loss": {"_target_": LOSSES, **terms}}
