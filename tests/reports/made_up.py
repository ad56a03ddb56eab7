"""Run directories with numbers chosen by a test, without edits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zerocon.core.records import Record
from zerocon.ledger.origin import Origin

PSNR = {"name": "psnr_bg", "unit": "dB", "better": "higher", "digits": 2}
LPIPS = {"name": "lpips_bg", "unit": "1e-3", "better": "lower", "digits": 1}
SUCCESS = {"name": "edit_success", "unit": "", "better": "higher", "digits": 3}
COLUMNS = (PSNR, LPIPS, SUCCESS)


def ok(case: str, kind: str = "", prompt: str = "a cat", **metrics: float) -> Record:
    return Record(
        case=case, status="ok", edit_type=kind, edit_name=_name(kind), source_prompt=prompt,
        metrics=metrics, seconds=0.5,
    )  # fmt: skip


def failed(case: str, kind: str = "") -> Record:
    metrics = {"psnr_bg": 1e9}  # counts for nothing
    return Record(
        case=case, status="failed", error="no", edit_type=kind, edit_name=_name(kind),
        metrics=metrics,
    )  # fmt: skip


def _name(kind: str) -> str:
    return f"kind {kind}" if kind else ""


def write_run(
    directory: Path,
    records: Sequence[Record],
    config: Mapping[str, Any] | None = None,
    columns: Sequence[Mapping[str, Any]] = COLUMNS,
    **origin: Any,
) -> Path:
    """`origin` replaces what run.json says."""
    directory.mkdir(parents=True)
    cases = list(dict.fromkeys(record.case for record in records))
    usual = Origin(
        name=directory.name,
        case_ids=cases,
        columns=[dict(column) for column in columns],
        protocol="masked",
        backbone={"name": "shapes", "fingerprint": "b0"},
        dataset={"name": "shapes_pie_20", "fingerprint": "d0"},
        judges={"ClipScore": "j0"},
        uses_mask=False,
        provenance={"git": {"revision": "0123456789ab"}},
    )
    (directory / "run.json").write_text(json.dumps(usual.__dict__ | origin))
    (directory / "config.yaml").write_text(yaml.safe_dump(dict(config or {"name": "x"})))
    (directory / "records.jsonl").write_bytes(b"".join(r.to_line() for r in records))
    return directory


def method(cls: str, seed: int = 0, **settings: Any) -> dict[str, Any]:
    return {"seed": seed, "method": {"_target_": f"zerocon.methods.some.{cls}", **settings}}
