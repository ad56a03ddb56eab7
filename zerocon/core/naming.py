"""A run's name: a digest of those of its settings that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

# Settings that change where or how fast a run is done, but none of its numbers.
NOT_IN_NAME = ("runner", "tracker", "backbone.device", "dataset.root", "hydra")
_ONE_NUMBER = 2.0**53  # a whole float up to here stands for one whole number


def content_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what leaves the numbers alone."""
    content = {key: value for key, value in config.items() if key not in NOT_IN_NAME}
    for dotted in NOT_IN_NAME:
        group, _, field = dotted.partition(".")
        if field and isinstance(content.get(group), dict):
            content[group] = {k: v for k, v in content[group].items() if k != field}
    return content


def digest(config: Mapping[str, Any]) -> str:
    """A short name for the content of a config; the order of its keys does not matter, nor
    whether a number is written 4 or 4.0."""
    text = json.dumps(canonical(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def canonical(value: Any) -> Any:
    """Every whole number without a point, inside lists and mappings too."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _ONE_NUMBER else value
    if isinstance(value, Mapping):
        return {k: canonical(v) for k, v in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in cast("list[Any]", value)]
    return value
