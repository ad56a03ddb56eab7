"""Which runs, records and columns are calibrated together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zerocon.core.checks import ConfigError
from zerocon.reports.calibration.findings import FEWEST_CASES, PRESERVATION, SUCCESS, TRUTHS
from zerocon.reports.comparison import chosen_cases, named_few
from zerocon.reports.evaluation import Evaluation, evaluation_of
from zerocon.reports.runs import Run, columns_of
from zerocon.reports.store import Cells, Store
from zerocon.reports.summary import Column


@dataclass(frozen=True)
class Block:
    """Runs whose records are pooled: measured alike, by the same judges."""

    evaluation: Evaluation
    runs: Sequence[Run]
    columns: Sequence[Column]  # to calibrate
    truths: Sequence[Column]  # to hold them against; success first
    cells: Cells  # of the runs' cases whose success is known
    notes: Sequence[str]

    @property
    def records(self) -> int:
        return int(self.ok.sum())

    @property
    def successes(self) -> int:
        return int((self.cells.values[SUCCESS] == 1).sum())

    @property
    def ok(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.cells.values[SUCCESS])


def blocks_of(
    runs: Sequence[Run], metrics: Sequence[str] = (), *, intersection: bool = False
) -> list[Block]:
    """Group the runs with a ground truth; raise if there is nothing to calibrate."""
    true, others = _with_truth(runs)
    if metrics:
        columns_of(true, metrics)  # raises if no run has one
    parts = [part for alike in _alike(true) for part in _of_same_cases(alike)]
    made = [_block(part, metrics, intersection) for part in parts]
    if others:
        said = f"left out, as no true edit is known ({SUCCESS}): {named_few(others)}"
        made[-1] = replace(made[-1], notes=[*made[-1].notes, said])
    return made


def _with_truth(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs that measured success, and the labels of the others."""
    true = [run for run in runs if SUCCESS in _names(run)]
    if not true:
        raise ConfigError(
            f"none of the {len(runs)} runs has the column {SUCCESS}: a calibration needs a dataset "
            "that knows the true edit, such as dataset=shapes, and the metric `truth`"
        )
    return true, [run.label for run in runs if run not in true]


def _names(run: Run) -> list[str]:
    return [str(column["name"]) for column in run.origin.columns]


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that measure the columns that they share in the same way.

    A run may have a judge that others lack; their datasets may be parts of one benchmark.
    """
    groups: list[tuple[dict[object, object], list[Run]]] = []
    for run in runs:
        measured = _how_measured(run)
        known, members = next(
            (group for group in groups if _agree(group[0], measured)), (None, None)
        )
        if known is None or members is None:
            groups.append((measured, [run]))
            continue
        known.update(measured)
        members.append(run)
    return [members for _, members in groups]


def _how_measured(run: Run) -> dict[object, object]:
    """What must be the same where two runs both have it."""
    evaluation = Evaluation.of(run, frozenset(_names(run)))
    judges: list[tuple[object, object]] = [(("judge", m), f) for m, f in evaluation.judges]
    columns: list[tuple[object, object]] = [(("column", c), d) for c, d in evaluation.definitions]
    pictures = (evaluation.resolution, evaluation.protocol, evaluation.legacy_jpeg)
    return dict([*judges, *columns, ("pictures", pictures), ("mixture", evaluation.mixture)])


def _agree(known: Mapping[object, object], other: Mapping[object, object]) -> bool:
    return all(known.get(key, value) == value for key, value in other.items())


def _of_same_cases(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs together, or by dataset if cases of the same name have different prompts."""
    if not Store(runs, [], prompts=True).cases_of_two_meanings():
        return [list(runs)]
    datasets: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        dataset = run.origin.dataset
        key = dataset.get("name", ""), dataset.get("fingerprint", "")
        datasets.setdefault(key, []).append(run)
    for (name, _), members in datasets.items():
        changed = Store(members, [], prompts=True).cases_of_two_meanings()
        if changed:
            raise ConfigError(
                f"the prompts of these cases of {name} differ between the runs: "
                f"{named_few(changed)}; calibrate these runs separately"
            )
    return list(datasets.values())


def _block(runs: Sequence[Run], metrics: Sequence[str], intersection: bool) -> Block:
    columns = columns_of(runs)
    known = {str(column["name"]): column for column in columns}
    cells = Store(runs, columns).cells()
    notes = [*_left_out(cells), *_without_truth(runs, cells)]
    cells, said = _with_known_success(runs, cells, intersection)
    values = {name: bool((~np.isnan(v)).any()) for name, v in cells.values.items()}
    asked = [known[name] for name in metrics if name in known] if metrics else _judged(columns)
    kept = [column for column in asked if values[str(column["name"])]]
    if not kept:
        named = f" of {', '.join(metrics)}" if metrics else " with a better direction"
        raise ConfigError(f"{_named(runs)} have no values in any column{named} to calibrate")
    truths = [known[n] for n in (SUCCESS, *PRESERVATION) if n in known and values[n]]
    notes += [*said, *_about_columns(runs, columns, asked, values, bool(metrics))]
    return Block(_evaluation(runs), runs, kept, truths, cells, notes)


def _named(runs: Sequence[Run]) -> str:
    return f"the runs {named_few([run.label for run in runs])}"


def _judged(columns: Sequence[Column]) -> list[Column]:
    return [c for c in columns if c["better"] and c["name"] not in TRUTHS]


def _left_out(cells: Cells) -> list[str]:
    failed = int((cells.recorded & ~cells.ok).sum())
    return [f"left out: {failed} records of edits that ended in an error"] if failed else []


def _without_truth(runs: Sequence[Run], cells: Cells) -> list[str]:
    unknown = cells.ok & np.isnan(cells.values[SUCCESS])
    by_run = [(run.label, int(n)) for run, n in zip(runs, unknown.sum(1), strict=True) if n]
    if not by_run:
        return []
    return [
        (
            f"left out: {sum(n for _, n in by_run)} records whose {SUCCESS} is not known, of "
            f"{named_few([label for label, _ in by_run])}"
        )
    ]


def _with_known_success(
    runs: Sequence[Run], cells: Cells, intersection: bool
) -> tuple[Cells, list[str]]:
    """Keep the cases, and the records, whose success is known."""
    success = cells.values[SUCCESS]
    there = ~np.isnan(success)
    strange = success[there & ~np.isin(success, (0.0, 1.0))]
    if len(strange):
        raise ConfigError(
            f"{SUCCESS} is {strange[0]:g} in {_named(runs)}; a calibration needs 1 or 0 per record"
        )
    chosen = np.asarray(there.all(0) if intersection else there.any(0))
    if chosen.sum() < FEWEST_CASES:
        shared = " that all runs share" if intersection else ""
        raise ConfigError(
            f"{_named(runs)} have {chosen.sum()} cases{shared} whose {SUCCESS} is known; a "
            f"calibration needs at least {FEWEST_CASES}"
        )
    values = {name: np.where(there, v, np.nan) for name, v in cells.values.items()}
    kept = chosen_cases(replace(cells, values=values), chosen)
    return kept, _about_cases(cells, there, chosen, intersection)


def _about_cases(
    cells: Cells, there: NDArray[np.bool_], chosen: NDArray[np.bool_], intersection: bool
) -> list[str]:
    if intersection:
        left = int(there.any(0).sum() - chosen.sum())
        return [f"left out: {left} cases that some runs lack (--intersection)"] if left else []
    if there[:, chosen].all():
        return []
    return [
        (
            "the runs do not have the same cases, so the ranking of runs depends also on their "
            "cases; --intersection keeps the cases that all have"
        )
    ]


def _about_columns(
    runs: Sequence[Run],
    columns: Sequence[Column],
    asked: Sequence[Column],
    values: Mapping[str, bool],
    chosen: bool,
) -> list[str]:
    """Note the columns that are missing, and those that are read without a better direction."""
    names = [str(column["name"]) for column in asked]
    lacking = {name: [r.label for r in runs if name not in _names(r)] for name in names}
    undirected = [str(c["name"]) for c in columns if not c["better"]]
    return [
        *[f"{n} was not measured in {named_few(some)}" for n, some in lacking.items() if some],
        *_listed("no record has what it needs, left out", [n for n in names if not values[n]]),
        *_listed("no better direction, left out (--metrics asks for them)",
                 [] if chosen else undirected),
        *_listed("no better direction, read as higher is better",
                 [n for n in names if n in undirected]),
        *_listed("no truth for preservation", [n for n in PRESERVATION if not values.get(n)]),
    ]  # fmt: skip


def _listed(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what}: {', '.join(names)}"] if names else []


def _evaluation(runs: Sequence[Run]) -> Evaluation:
    """What the runs have in common; fingerprints that differ are left out."""
    each = [evaluation_of(run) for run in runs]
    fingerprints = {e.dataset_fingerprint for e in each}
    return replace(
        each[0],
        dataset=", ".join(dict.fromkeys(e.dataset for e in each)),
        dataset_fingerprint=fingerprints.pop() if len(fingerprints) == 1 else "",
        judges=tuple(sorted({pair for e in each for pair in e.judges})),
        judge_names=tuple(sorted({pair for e in each for pair in e.judge_names})),
        uses_mask=False,
    )
