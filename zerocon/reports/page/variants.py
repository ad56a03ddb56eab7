"""A report's runs as variants: the settings in which they differ, and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zerocon.core.text import printable
from zerocon.reports.frontier.curves import is_number
from zerocon.reports.runs import NO_VALUE, Run, check_field, natural, short_names, varying

SEED, METHOD = "seed", "method"
MOST_SWEPT = 2  # swept settings that a plot can show
MOST_IN_A_NAME = 3  # settings in a variant's label


@dataclass(frozen=True)
class Variants:
    """Runs side by side. Of settings that always change together, the first represents all."""

    runs: Sequence[Run]
    labels: Sequence[str]  # one per run; short and unique
    differ: Mapping[str, list[str]]  # every setting that differs -> its values
    told: Sequence[str]  # of these, the settings that distinguish the runs
    swept: Sequence[str]  # at most two settings to plot over; none if the runs are no sweep

    def values(self, setting: str) -> list[str]:
        """These runs' values of the setting, in order."""
        return sorted({run.field(setting) for run in self.runs}, key=natural)

    def part(self, runs: Sequence[Run], swept: Sequence[str] | None = None) -> Variants:
        """A subset of the runs with the same labels; its swept settings may differ."""
        named = dict(zip((id(run) for run in self.runs), self.labels, strict=True))
        return Variants(
            runs,
            [named[id(run)] for run in runs],
            self.differ,
            self.told,
            self.swept if swept is None else swept,
        )


def variants_of(runs: Sequence[Run], along: Sequence[str] = ()) -> Variants:
    """`along` chooses the swept settings; by default those that differ, if at most two."""
    for setting in along:
        check_field(runs, setting)
    differ = varying(runs)
    names = [name for name in differ if name != SEED]
    alone = independent(runs, sorted(names, key=lambda name: name != METHOD))
    swept = list(along[:MOST_SWEPT]) or (alone if len(alone) <= MOST_SWEPT else [])
    if not along:  # numbers first, for the axis
        swept = sorted(swept, key=lambda name: not numeric(differ[name]))
    told = [*dict.fromkeys([*swept, *alone]), *([SEED] if SEED in differ else [])]
    ordered = sorted(runs, key=lambda run: [natural(run.field(name)) for name in swept])
    return Variants(ordered, _labels(ordered, told), differ, told, swept)


def independent(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Drop settings that always change together with an earlier one."""
    kept: dict[tuple[int, ...], str] = {}
    for name in names:
        places: dict[str, int] = {}
        pattern = tuple(places.setdefault(run.field(name), len(places)) for run in runs)
        kept.setdefault(pattern, name)
    return list(kept.values())


def _labels(runs: Sequence[Run], settings: Sequence[str]) -> list[str]:
    """Label runs by the settings that differ; if too many or not unique, by name or directory."""
    by_settings = [_by_settings(run, settings) for run in runs]
    choices = [[printable(run.origin.name) for run in runs], [run.label for run in runs]]
    if 0 < len(settings) <= MOST_IN_A_NAME:
        choices.insert(0, by_settings)
    return next((c for c in choices if len(set(c)) == len(runs)), choices[-1])


def _by_settings(run: Run, settings: Sequence[str]) -> str:
    short = short_names(settings)
    parts = [("" if name == METHOD else short[name], run.field(name)) for name in settings]
    known = [(name, value) for name, value in parts if value != NO_VALUE]
    return ", ".join(f"{name}={value}" if name else value for name, value in known)


def numeric(values: Sequence[str]) -> bool:
    return bool(values) and all(map(is_number, values))
