"""How a run's numbers came about: only runs with the same evaluation stand in one column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, cast

from zerocon.core.checks import ConfigError
from zerocon.reports.runs import Run

Pairs = tuple[tuple[str, str], ...]

OWN = "the shapes world's own"  # judges whose weights come with the package
_GIVEN_MASK = {
    True: "the method was given the benchmark's mask",
    False: "",
    None: "nobody said whether the method was given the benchmark's mask",
}
_DIFFERENCES = {
    "dataset": "dataset",
    "dataset_fingerprint": "the dataset's content or its cases",
    "resolution": "the resolution of the pictures",
    "protocol": "protocol",
    "legacy_jpeg": "whether pictures were recompressed as JPEG",
    "judges": "the models that judge",
    "uses_mask": "whether the method was given the mask",
    "definitions": "how a column of the same name is measured",
    "mixture": "whether its judges know the pictures that it edits",
}


@dataclass(frozen=True)
class Evaluation:
    """What numbers of several runs must share before they may be compared."""

    dataset: str
    dataset_fingerprint: str
    resolution: str  # "" where no picture says it
    protocol: str
    legacy_jpeg: bool
    judges: Pairs  # metric, fingerprint of the weights it judges by
    uses_mask: bool | None  # None: nobody said
    definitions: Pairs = ()  # of the columns that not all runs measure in the same way
    mixture: str = ""  # in words: which of the run's choices are not of one world
    judge_names: Pairs = field(default=(), compare=False)  # metric, its judge in words

    @classmethod
    def of(cls, run: Run, ambiguous: frozenset[str] = frozenset()) -> Evaluation:
        origin = run.origin
        return cls(
            dataset=origin.dataset.get("name", ""),
            dataset_fingerprint=origin.dataset.get("fingerprint", ""),
            resolution=run.resolution,
            protocol=origin.protocol,
            legacy_jpeg=run.legacy_jpeg,
            judges=tuple(sorted(origin.judges.items())),
            uses_mask=origin.uses_mask,
            definitions=tuple(
                (str(column["name"]), _definition(column))
                for column in sorted(origin.columns, key=lambda c: str(c["name"]))
                if column["name"] in ambiguous
            ),
            mixture=str(origin.provenance.get("mixed_worlds", "")),
        )

    def title(self) -> str:
        """The short form that tells one table from another."""
        mask = {True: ", given the mask", False: "", None: ", not said whether given the mask"}
        jpeg = ", recompressed as JPEG" if self.legacy_jpeg else ""
        return f"{self.dataset}{self._at()}, protocol {self.protocol}{jpeg}{mask[self.uses_mask]}"

    def words(self) -> str:
        dataset = f"{self.dataset} {self.dataset_fingerprint}".strip()
        defined = [f"{name} measured on {how}" for name, how in self.definitions]
        said = [
            f"{dataset}{self._at()}, protocol {self.protocol}, judged {self.judges_in_words()}",
            *([f"{', '.join(defined)}"] if defined else []),
            *(["pictures recompressed as JPEG, as published"] if self.legacy_jpeg else []),
            _GIVEN_MASK[self.uses_mask],
            self._warning(),
        ]
        return "; ".join(part for part in said if part)

    def judges_in_words(self) -> str:
        names = dict(self.judge_names)
        named = [
            f"{metric} by {names[metric]} ({judge})" if metric in names else f"{metric} by {judge}"
            for metric, judge in self.judges
        ]
        return ", ".join(named) or "by no model"

    def _at(self) -> str:
        return f" at {self.resolution} pixels" if self.resolution else ""

    def _warning(self) -> str:
        """What was mixed when the run was made; of runs from before, what the names tell."""
        if self.mixture:
            return self.mixture
        strange = not self.dataset.startswith("shapes") and any(
            name.startswith(OWN) for _, name in self.judge_names
        )
        return "the judges of the shapes world have seen no photographs" if strange else ""


def evaluations(
    runs: Sequence[Run], columns: Iterable[str] | None = None
) -> dict[Evaluation, list[Run]]:
    """Runs by their evaluation. Runs with different ones are never in one column.

    `columns` are those that are to be shown; by default all.
    """
    ambiguous = _ambiguous(runs)
    ambiguous = ambiguous if columns is None else ambiguous & set(columns)
    found: dict[Evaluation, list[Run]] = {}
    for run in runs:
        found.setdefault(Evaluation.of(run, ambiguous), []).append(run)
    return {named(evaluation, several[0]): several for evaluation, several in found.items()}


def named(evaluation: Evaluation, run: Run) -> Evaluation:
    """With its judges in words, as the config of one of its runs has them."""
    return replace(evaluation, judge_names=_judge_names(run))


def evaluation_of(run: Run) -> Evaluation:
    return named(Evaluation.of(run), run)


def differences(several: Iterable[Evaluation]) -> str:
    """In what the evaluations differ, in words."""
    kinds = list(several)
    differ = [name for name in _DIFFERENCES if len({getattr(kind, name) for kind in kinds}) > 1]
    if "dataset" in differ:  # another dataset has another content, too
        differ = [name for name in differ if name != "dataset_fingerprint"]
    return ", ".join(_DIFFERENCES[name] for name in differ)


def _ambiguous(runs: Sequence[Run]) -> frozenset[str]:
    """The columns that are not measured in the same way in all runs that have them."""
    definitions: dict[str, set[str]] = {}
    for run in runs:
        for column in run.origin.columns:
            definitions.setdefault(str(column["name"]), set()).add(_definition(column))
    return frozenset(name for name, several in definitions.items() if len(several) > 1)


def _definition(column: Mapping[str, Any]) -> str:
    """The pixels that a column measures and how they come to its judge."""
    return f"the {column.get('area', 'whole')} picture, values {column.get('takes', '0..1')}"


def _judge_names(run: Run) -> Pairs:
    try:
        metrics: Any = run.config.get("metrics")
    except ConfigError:
        return ()
    if not isinstance(metrics, dict):
        return ()
    settings = [s for s in cast("dict[str, Any]", metrics).values() if isinstance(s, dict)]
    found = {_class_of(s): _judge(s) for s in cast("list[dict[str, Any]]", settings)}
    return tuple((name, found[name]) for name in sorted(run.origin.judges) if found.get(name))


def _class_of(settings: Mapping[str, Any]) -> str:
    return str(settings.get("_target_", "")).rpartition(".")[2]


def _judge(settings: Mapping[str, Any]) -> str:
    """The weights that a metric's settings name; "" where they name none."""
    net, path, revision = (settings.get(name) for name in ("net", "path", "revision"))
    if net is not None:
        return f"{OWN} network" if net == "shapes" else f"LPIPS with {net}"
    if "path" not in settings:
        return ""
    if path is None:
        return f"{OWN} network"
    at = f" at {str(revision)[:12]}" if revision else ""
    return f"{PurePath(str(path)).name}{at}"
