"""A run's name: the digest of the settings that its numbers depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

# Settings that do not affect a run's numbers, only where or how fast it is done.
NOT_IN_NAME = (
    "runner", "tracker", "backbone.device", "backbone.compile", "backbone.vae_slicing",
    "dataset.root", "hydra",
)  # fmt: skip
# The settings among them that affect bits. They are part of the name only if they are on.
DETERMINISTIC, COMPILE = "runner.deterministic", "backbone.compile"
# Settings that came later, with what was done before: part of the name only if they differ.
LATER = {"method.every": 1, "method.gradient_scale": 1.0, "inversion.every": 1}
LATER_OF_UNETS = ("backbone.height", "backbone.width")  # null before; flow models always had them
UNETS = ("zerocon.StableDiffusion", "zerocon.SDXL")
# Settings with a short form -> the settings that a run stores.
SHORT_NAMES = {
    "loss.xa_weight": "loss.xa.weight",
    "loss.cut_weight": "loss.cut.weight",
    "loss.zecon_weight": "loss.zecon.weight",
    "loss.n_patches": "loss.cut.n_patches",
}
# Usual short names of precisions -> the names that a run stores.
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "fp64": "float64"}
_ONE_NUMBER = 2.0**53  # up to here, floats represent every whole number exactly


def is_in_name(setting: str) -> bool:
    """Return whether numbers depend on the setting, such as `method.steps`."""
    return setting in (DETERMINISTIC, COMPILE) or not any(
        f"{setting}.".startswith(f"{name}.") for name in NOT_IN_NAME
    )


def content_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without settings that do not affect numbers."""
    content = {key: value for key, value in config.items() if key not in NOT_IN_NAME}
    as_before = [name for name, value in LATER.items() if _value(config, name) == value]
    if class_name(str(_value(config, "backbone._target_"))) in UNETS:
        as_before += [name for name in LATER_OF_UNETS if _value(config, name) is None]
    for dotted in (*NOT_IN_NAME, *as_before):
        group, _, field = dotted.partition(".")
        if field and isinstance(content.get(group), Mapping):
            content[group] = {k: v for k, v in content[group].items() if k != field}
    if _is_on(config, DETERMINISTIC):
        content["runner"] = {"deterministic": True}
    if _is_on(config, COMPILE):
        content["backbone"]["compile"] = True
    return content


def _is_on(config: Mapping[str, Any], setting: str) -> bool:
    return _value(config, setting) is True


def _value(config: Mapping[str, Any], setting: str) -> Any:
    group, _, field = setting.partition(".")
    return config[group].get(field) if isinstance(config.get(group), Mapping) else None


def digest(content: Mapping[str, Any]) -> str:
    """A short digest of settings, independent of the keys' order, and equal for `4` and `4.0`."""
    text = json.dumps(_named(canonical(content)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def digest_of_settings(config: Mapping[str, Any]) -> str:
    """The digest in a run directory's name, after the user's name for it."""
    return digest({key: value for key, value in content_of(config).items() if key != "name"})


def class_name(target: str) -> str:
    """A class's name without its file, which may change: `zerocon.DDIM`.

    Classes outside the package keep their full path.
    """
    if not target.startswith("zerocon."):
        return target
    return f"zerocon.{target.rpartition('.')[2]}"


def canonical(value: Any) -> Any:
    """Write whole floats as integers, also in lists and mappings."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= _ONE_NUMBER else value
    if isinstance(value, Mapping):
        return {k: canonical(v) for k, v in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in cast("list[Any]", value)]
    return value


def _named(value: Any) -> Any:
    """Replace every class path by the class's name."""
    if isinstance(value, Mapping):
        return {
            key: class_name(str(inner)) if key == "_target_" else _named(inner)
            for key, inner in cast("Mapping[str, Any]", value).items()
        }
    if isinstance(value, list):
        return [_named(item) for item in cast("list[Any]", value)]
    return value
