"""A report's sections beside the results: settings, costs, provenance, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from zerocon.core.naming import is_in_name
from zerocon.core.records import Record
from zerocon.core.text import counted
from zerocon.ledger.run_directory import RunDirectory
from zerocon.reports.evaluation import evaluation_of
from zerocon.reports.layout import NOTHING
from zerocon.reports.page.markup import cell, details, head, notes, pairs, table
from zerocon.reports.page.variants import Variants
from zerocon.reports.runs import Run, shown

_MOST_FAILURES = 200
_MIB = 2**20


def asked(variants: Variants) -> str:
    """The settings that differ, with their values, and the common settings."""
    apart = {name: ", ".join(values) for name, values in variants.differ.items()}
    first = variants.runs[0]
    shared = {
        name: first.field(name)
        for name in first.fields
        if name not in apart and is_in_name(name) and name != "name"
    }
    count = len(variants.runs)
    of_whom = "all runs share" if count > 1 else "it was made with"
    title = f"{counted(len(shared), 'setting')} that {of_whom}"
    said = "" if apart or count == 1 else notes(["the runs differ in no setting"])
    told = {name: apart[name] for name in variants.told if name in apart}
    follow = {name: values for name, values in apart.items() if name not in told}
    return (
        pairs(told)
        + said
        + details(f"{counted(len(follow), 'setting')} that change with them", pairs(follow))
        + details(title, pairs(shared))
        + _progress(variants)
    )


def _progress(variants: Variants) -> str:
    """List the runs that are unfinished or still running."""
    states = [(label, RunDirectory(r.directory).status()) for label, r in _named(variants)]
    return notes(
        [f"{label} is {s.words()}" for label, s in states if s.left or s.state == "running"]
    )


def _named(variants: Variants) -> list[tuple[str, Run]]:
    return list(zip(variants.labels, variants.runs, strict=True))


def failures(variants: Variants, records: Sequence[Sequence[Record]]) -> str:
    """Every failed case with its error; of repeated attempts the last counts."""
    found = [
        (label, record)
        for label, of_run in zip(variants.labels, records, strict=True)
        for record in of_run
        if not record.ok
    ]
    if not found:
        return notes(["no case failed"])
    header = [head(name, key=True) for name in ("variant", "case", "edit type", "error")]
    rows = [
        [
            cell(text, key=True)
            for text in (label, r.case, r.edit_name or r.edit_type, r.error or "")
        ]
        for label, r in found[:_MOST_FAILURES]
    ]
    more = len(found) - _MOST_FAILURES
    said = [f"and {more} more"] if more > 0 else []
    return table(header, rows, name="failed") + notes(said)


_COSTS = (
    "seconds",
    "seconds, inversion",
    "seconds, editing",
    "U-Net forward",
    "of these, inversion",
    "of these, source branch",
    "U-Net backward",
    "forward per case",
    "peak memory (MiB)",
    "sessions",
)


def cost(variants: Variants, records: Sequence[Sequence[Record]]) -> str:
    rows = [
        [cell(label, key=True), *(_amount(value) for value in _costs(run, of_run))]
        for (label, run), of_run in zip(_named(variants), records, strict=True)
    ]
    header = [head("variant", key=True), *(head(name, better="lower") for name in _COSTS)]
    said = [
        (
            "seconds: of the recorded sessions, or else of the cases; U-Net: rows, that is "
            "single-case evaluations. An inversion that another run left in the cache costs "
            "nothing"
        )
    ]
    return table(header, rows, name="costs") + notes(said)


def _amount(value: float | None) -> str:
    if value is None:
        return cell(NOTHING)
    return cell(
        f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}", value=value
    )


def _costs(run: Run, records: Sequence[Record]) -> list[float | None]:
    sessions = RunDirectory(run.directory).sessions()
    of_cases = sum(record.seconds for record in records)
    if not sessions:
        return [of_cases, *[None] * (len(_COSTS) - 1)]
    inversion, editing = (_sum(sessions, "seconds", stage) for stage in ("inversion", "editing"))
    forward, backward = (_sum(sessions, f"unet_{way}") for way in ("forward", "backward"))
    inverting = _sum(sessions, "unet_forward", "inversion")
    beside = _sum(sessions, "unet_reference", "editing")
    peak = max(float(session.get("peak_bytes") or 0) for session in sessions) / _MIB
    fine = sum(record.ok for record in records)
    each = forward / fine if fine else None
    seconds = inversion + editing
    rows = [forward, inverting, beside, backward, each]
    return [seconds, inversion, editing, *rows, peak or None, len(sessions)]


def _sum(sessions: Sequence[Mapping[str, Any]], what: str, stage: str | None = None) -> float:
    parts = [cast("Mapping[str, float]", session.get(what) or {}) for session in sessions]
    return sum(v for part in parts for k, v in part.items() if stage in (None, k))


def provenance(variants: Variants) -> str:
    """A list of what all runs share, and a table of the differences."""
    known = [_origin(run) for run in variants.runs]
    names = list(dict.fromkeys(name for one in known for name in one))
    apart = [name for name in names if len({one.get(name, NOTHING) for one in known}) > 1]
    shared = {name: known[0][name] for name in names if name not in apart}
    where = [(label, str(run.directory)) for label, run in _named(variants)]
    header = [head("variant", key=True), *(head(name, key=True) for name in (*apart, "directory"))]
    rows = [
        [cell(text, key=True) for text in (label, *(one.get(n, NOTHING) for n in apart), directory)]
        for (label, directory), one in zip(where, known, strict=True)
    ]
    return pairs(shared) + table(header, rows)


def _answer(said: bool | None) -> str:
    return "unknown" if said is None else "yes" if said else "no"


def _origin(run: Run) -> dict[str, str]:
    origin = run.origin
    evaluation = evaluation_of(run)
    said = {
        "dataset": _both(origin.dataset),
        "pixels": evaluation.resolution or NOTHING,
        "backbone": _both(origin.backbone),
        "protocol": origin.protocol,
        "given the benchmark's mask": _answer(origin.uses_mask),
    }
    names = dict(evaluation.judge_names)
    judges = {
        f"judge of {metric}": f"{names.get(metric, '')} {judge}".strip()
        for metric, judge in origin.judges.items()
    }
    return said | judges | _flat(origin.provenance)


def _both(thing: Mapping[str, str]) -> str:
    return f"{thing.get('name', '')} {thing.get('fingerprint', '')}".strip()


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            found |= _flat(cast("dict[str, Any]", value), f"{name} ")
        else:
            found[f"{prefix}{name}"] = shown(value)
    return found
