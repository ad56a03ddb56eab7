"""Convert configs that earlier versions stored to the current form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOSSES = "zerocon.losses.Losses"
TERMS = {"xa": "zerocon.losses.CrossAttention", "cut": "zerocon.losses.PatchNCE"}


def brought_up(config: Mapping[str, Any]) -> dict[str, Any]:
    """Split the losses, once a single class with all their settings, into a term each."""
    loss = config.get("loss")
    if not isinstance(loss, dict) or loss.get("_target_") != LOSSES or "xa_sites" not in loss:
        return dict(config)
    flat = {key: value for key, value in loss.items() if key != "_target_"}
    terms: dict[str, Any] = {name: {"_target_": target} for name, target in TERMS.items()}
    for key, value in flat.items():
        name, _, field = key.partition("_")
        if name in terms:
            terms[name][field] = value
        else:  # settings without a prefix belonged to the contrastive loss
            terms["cut"][key] = value
    return {**config, "loss": {"_target_": LOSSES, **terms}}
