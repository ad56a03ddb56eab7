"""How a run was evaluated. Only runs with the same evaluation share a table column."""

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
    None: "unknown whether the method was given the benchmark's mask",
}
_DIFFERENCES = {
    "dataset": "dataset",
    "dataset_fingerprint": "the dataset's content or its cases",
    "resolution": "the resolution of the pictures",
    "protocol": "protocol",
    "legacy_jpeg": "whether pictures were recompressed as JPEG",
    "judges": "the judges' weights",
    "uses_mask": "whether the method was given the mask",
    "definitions": "how a column of the same name is measured",
    "mixture": "whether the judges were trained on such pictures",
}


@dataclass(frozen=True)
class Evaluation:
    """What runs must have in common for their numbers to be comparable."""

    dataset: str
    dataset_fingerprint: str
    resolution: str  # "" without pictures
    protocol: str
    legacy_jpeg: bool
    judges: Pairs  # metric, fingerprint of its judge's weights
    uses_mask: bool | None  # None: unknown
    definitions: Pairs = ()  # of columns that the runs measure differently
    mixture: str = ""  # message on choices that do not fit, such as shapes judges for photographs
    judge_names: Pairs = field(default=(), compare=False)  # metric, description of its judge

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
        """A short title that distinguishes tables."""
        mask = {True: ", given the mask", False: "", None: ", unknown whether given the mask"}
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
        return ", ".join(named) or "without a model"

    def _at(self) -> str:
        return f" at {self.resolution} pixels" if self.resolution else ""

    def _warning(self) -> str:
        """Choices that do not fit: as recorded, or for older runs derived from names."""
        if self.mixture:
            return self.mixture
        strange = not self.dataset.startswith("shapes") and any(
            name.startswith(OWN) for _, name in self.judge_names
        )
        return "the shapes world's judges were not trained on photographs" if strange else ""


def evaluations(
    runs: Sequence[Run], columns: Iterable[str] | None = None
) -> dict[Evaluation, list[Run]]:
    """Group runs by evaluation. Runs with different ones never share a column.

    `columns` are the columns to show; by default all.
    """
    ambiguous = _ambiguous(runs)
    ambiguous = ambiguous if columns is None else ambiguous & set(columns)
    found: dict[Evaluation, list[Run]] = {}
    for run in runs:
        found.setdefault(Evaluation.of(run, ambiguous), []).append(run)
    return {named(evaluation, several[0]): several for evaluation, several in found.items()}


def named(evaluation: Evaluation, run: Run) -> Evaluation:
    """Add descriptions of the judges, from the config of one of its runs."""
    return replace(evaluation, judge_names=_judge_names(run))


def evaluation_of(run: Run) -> Evaluation:
    return named(Evaluation.of(run), run)


def differences(several: Iterable[Evaluation]) -> str:
    """Describe in what the evaluations differ."""
    kinds = list(several)
    differ = [name for name in _DIFFERENCES if len({getattr(kind, name) for kind in kinds}) > 1]
    if "dataset" in differ:  # another dataset implies another content
        differ = [name for name in differ if name != "dataset_fingerprint"]
    return ", ".join(_DIFFERENCES[name] for name in differ)


def _ambiguous(runs: Sequence[Run]) -> frozenset[str]:
    """Return the columns that the runs measure in different ways."""
    definitions: dict[str, set[str]] = {}
    for run in runs:
        for column in run.origin.columns:
            definitions.setdefault(str(column["name"]), set()).add(_definition(column))
    return frozenset(name for name, several in definitions.items() if len(several) > 1)


def _definition(column: Mapping[str, Any]) -> str:
    """Describe the pixels that a column measures and their value range."""
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
    """Describe the weights that a metric's settings name; "" if none."""
    net, path, revision = (settings.get(name) for name in ("net", "path", "revision"))
    if net is not None:
        return f"{OWN} network" if net == "shapes" else f"LPIPS with {net}"
    if "path" not in settings:
        return ""
    if path is None:
        return f"{OWN} network"
    at = f" at {str(revision)[:12]}" if revision else ""
    return f"{PurePath(str(path)).name}{at}"
