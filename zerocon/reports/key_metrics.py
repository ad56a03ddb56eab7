"""Metrics in words, and the few that are shown where there is no room for all."""

from __future__ import annotations

from collections.abc import Sequence

from zerocon.reports.summary import Column

# The edit, then the preservation of the rest; of several metrics, the first that was measured.
KEY_METRICS = (
    ("edit_success", "clip_accuracy", "clip_edited"),
    ("clip_whole", "clip_image", "clip_direction"),
    ("lpips_bg", "lpips_whole"),
    ("psnr_bg", "ssim_bg", "psnr_whole"),
    ("structure", "dino_image"),
)

# What is measured, and the part of the picture.
_MEASURES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "mse": "squared error",
    "lpips": "LPIPS",
    "dino": "DINO",
}
_PARTS = {
    "bg": "of the background",
    "whole": "of the whole picture",
    "edited": "of the edited region",
    "truth": "to the ground truth",
    "black": "with the edited region black",
    "image": "similarity to the source",
}
_IN_WORDS = {
    "edit_success": "edit success (share of cases)",
    "structure": "structure distance to the source",
    "clip_whole": "CLIP score of the whole picture",
    "clip_edited": "CLIP score of the edited region",
    "clip_source": "CLIP score with the source prompt",
    "clip_direction": "CLIP direction similarity",
    "clip_accuracy": "CLIP accuracy (share of cases)",
    "clip_image": "CLIP similarity to the source",
    "bg_share": "share of background pixels",
    "edited_share": "share of edited pixels",
}
_UNITS = {"1e-3": "× 10⁻³", "1e-4": "× 10⁻⁴"}
_BETTER = {"higher": ", higher is better", "lower": ", lower is better", "": ""}


def key_columns(columns: Sequence[Column]) -> list[Column]:
    """At most five columns: a metric of each kind, then others that have a better direction."""
    known = {str(column["name"]): column for column in columns}
    chosen = [next((n for n in names if n in known), "") for names in KEY_METRICS]
    others = [name for name, column in known.items() if column["better"] and name not in chosen]
    found = [name for name in chosen if name]
    return [known[name] for name in [*found, *others][: len(KEY_METRICS)]]


def key_first(columns: Sequence[Column]) -> list[Column]:
    first = key_columns(columns)
    return [*first, *(column for column in columns if column not in first)]


def in_words(name: str) -> str:
    """A metric's name in words; a name that is not of this package without its underscores."""
    if name in _IN_WORDS:
        return _IN_WORDS[name]
    measure, _, part = name.partition("_")
    if measure in _MEASURES and part in _PARTS:
        return f"{_MEASURES[measure]} {_PARTS[part]}"
    return name.replace("_", " ")


def unit_label(column: Column) -> str:
    """A metric's unit and better direction, for a plot whose title says the metric."""
    unit = str(column["unit"])
    return f"{_UNITS.get(unit, unit)}{_BETTER[column['better']]}".removeprefix(", ")


def axis_label(column: Column) -> str:
    """A metric for a plot's axis: words, unit, and which direction is better."""
    words, unit = in_words(str(column["name"])), str(column["unit"])
    in_unit = f" ({_UNITS.get(unit, unit)})" if unit else ""
    return f"{words}{in_unit}{_BETTER[column['better']]}"
