"""Names of a report's runs: by what distinguishes them, not by a digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from zerocon.core.checks import ConfigError
from zerocon.core.naming import SHORT_NAMES
from zerocon.core.text import printable
from zerocon.reports.runs import NO_VALUE, Run, short_names, varying

METHOD, SEED = "method", "seed"
# Settings that follow from others (such as the inversion's guidance) are named last.
_GROUPS = ("method", "loss", "inversion", "direction", "dataset", "backbone")
_LONG_NAMES = {stored: short for short, stored in SHORT_NAMES.items()}


def named(runs: Sequence[Run]) -> list[Run]:
    """The runs with labels such as `steps=4`; several runs of one name by their settings."""
    labels = labels_of(runs)
    return [replace(run, label=name) for run, name in zip(runs, labels, strict=True)]


def labels_of(runs: Sequence[Run]) -> list[str]:
    """A unique label for each run.

    The name that a person gave, and the settings in which the runs of that name differ. What
    these do not distinguish, and a run alone, keeps its directory's name.
    """
    if len(runs) < 2:
        return [run.label for run in runs]
    groups: dict[str, list[int]] = {}
    for position, run in enumerate(runs):
        groups.setdefault(run.origin.name, []).append(position)
    labels = [printable(run.origin.name) for run in runs]
    for name, members in groups.items():
        if len(members) > 1:
            start = f"{printable(name)} " if len(groups) > 1 else ""
            for position, words in zip(members, _words([runs[i] for i in members]), strict=True):
                labels[position] = f"{start}{words}".strip()
    often = Counter(labels)
    return [
        label if label and often[label] == 1 else run.label
        for label, run in zip(labels, runs, strict=True)
    ]


def _words(runs: Sequence[Run]) -> list[str]:
    """For each run, the settings that distinguish it: "PnP attention=0.4"; "" if none can."""
    try:
        settings = distinguishing(runs, list(varying(runs)))
    except ConfigError:  # a config that can't be read
        return [""] * len(runs)
    shorts = short_names([_LONG_NAMES.get(name, name) for name in settings])
    parts: list[list[str]] = [[] for _ in runs]
    for setting, short in zip(settings, shorts.values(), strict=True):
        told = [tuple(part) for part in parts]
        values = [run.field(setting) for run in runs]
        several = _several(told, values)
        for part, value, so_far in zip(parts, values, told, strict=True):
            if so_far in several and value != NO_VALUE:
                part.append(value if setting == METHOD else f"{short}={value}")
    return [" ".join(part) for part in parts]


def _several(told: Sequence[tuple[str, ...]], values: Sequence[str]) -> set[tuple[str, ...]]:
    """The labels so far whose runs have several values of the next setting."""
    found: dict[tuple[str, ...], set[str]] = {}
    for so_far, value in zip(told, values, strict=True):
        found.setdefault(so_far, set()).add(value)
    return {so_far for so_far, several in found.items() if len(several) > 1}


def distinguishing(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The settings that tell runs apart that the settings before them do not."""
    kept: list[str] = []
    classes = [0] * len(runs)
    for name in sorted(names, key=_place):
        finer = _numbered(list(zip(classes, (run.field(name) for run in runs), strict=True)))
        if max(finer) > max(classes):
            kept.append(name)
            classes = finer
    return kept


def _numbered(keys: Sequence[object]) -> list[int]:
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [places[key] for key in keys]


def _place(setting: str) -> tuple[int, int]:
    """The method first, the seed last."""
    group = setting.partition(".")[0]
    place = _GROUPS.index(group) if group in _GROUPS else len(_GROUPS)
    return (place + (setting == SEED), int(setting != METHOD))
