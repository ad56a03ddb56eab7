"""A run's name: which settings its numbers depend on, and the digest of their values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Settings that change where or how fast a run is done, but none of its numbers.
NOT_IN_NAME = ("runner", "tracker", "backbone.device", "dataset.root", "hydra")


def digest(content: Mapping[str, Any]) -> str:
    """A short name for settings. Neither the order of the keys nor `4` or `4.0` matter."""
    text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def content_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the settings that change no number."""
    content = {key: value for key, value in config.items() if key not in NOT_IN_NAME}
    for dotted in NOT_IN_NAME:
        group, _, field = dotted.partition(".")
        if field and isinstance(content.get(group), Mapping):
            content[group] = {k: v for k, v in content[group].items() if k != field}
    return content


def digest_of_settings(config: Mapping[str, Any]) -> str:
    """What a run's directory is named by, after the name that the user gave."""
    return digest({key: value for key, value in content_of(config).items() if key != "name"})


def class_name(target: str) -> str:
    """A class without the place of its file, which may change: `zerocon.DDIM`.

    A class outside the package is known by its whole path.
    """
    if not target.startswith("zerocon."):
        return target
    return f"zerocon.{target.rpartition('.')[2]}"


def _plain(value: Any) -> Any:
    """The same value in one form only."""
    if isinstance(value, Mapping):
        return {
            key: class_name(inner) if key == "_target_" else _plain(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
