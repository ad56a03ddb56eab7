"""A run's name: which settings its numbers depend on, and the digest of their values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

# Settings that change where or how fast a run is done, but none of its numbers.
NOT_IN_NAME = ("runner", "tracker", "backbone.device", "dataset.root", "hydra")
# The one setting below them that promises other bits. Unless it is on, no name mentions it.
DETERMINISTIC = "runner.deterministic"
# Settings that can be given by a shorter name; what they fill is what a run stores.
SHORT_NAMES = {
    "loss.xa_weight": "loss.xa.weight",
    "loss.cut_weight": "loss.cut.weight",
    "loss.n_patches": "loss.cut.n_patches",
}
_ONE_NUMBER = 2.0**53  # a whole float up to here stands for one whole number


def is_in_name(setting: str) -> bool:
    """Return whether numbers depend on the setting, such as `method.steps`."""
    return setting == DETERMINISTIC or not any(
        f"{setting}.".startswith(f"{name}.") for name in NOT_IN_NAME
    )


def content_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the settings that change no number."""
    content = {key: value for key, value in config.items() if key not in NOT_IN_NAME}
    for dotted in NOT_IN_NAME:
        group, _, field = dotted.partition(".")
        if field and isinstance(content.get(group), Mapping):
            content[group] = {k: v for k, v in content[group].items() if k != field}
    runner = config.get("runner")
    if isinstance(runner, Mapping) and cast("Mapping[str, Any]", runner).get("deterministic"):
        content["runner"] = {"deterministic": True}
    return content


def digest(content: Mapping[str, Any]) -> str:
    """A short name for settings. Neither the order of the keys nor `4` or `4.0` matter."""
    text = json.dumps(_named(canonical(content)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


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


def canonical(value: Any) -> Any:
    """Every whole number without a point, inside lists and mappings too."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _ONE_NUMBER else value
    if isinstance(value, Mapping):
        return {k: canonical(v) for k, v in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in cast("list[Any]", value)]
    return value


def _named(value: Any) -> Any:
    """Every class by its name alone."""
    if isinstance(value, Mapping):
        return {
            key: class_name(str(inner)) if key == "_target_" else _named(inner)
            for key, inner in cast("Mapping[str, Any]", value).items()
        }
    if isinstance(value, list):
        return [_named(item) for item in cast("list[Any]", value)]
    return value
