"""Upload runs to a tracker after they ended, from their records alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zerocon.config.bind import build
from zerocon.core.naming import digest
from zerocon.ledger.records import FILE_NAME
from zerocon.ledger.run_directory import RunDirectory
from zerocon.reports.summary import summarize
from zerocon.trackers.base import Tracker


def sync(directory: Path, tracker_config: Mapping[str, Any]) -> bool:
    """Upload the run unless already uploaded; return whether anything was sent."""
    run = RunDirectory(directory)
    if not run.begun or not run.records():
        return False
    sent, where = run.synced(), digest(tracker_config)
    state = digest({"records": (run.path / FILE_NAME).read_text()})
    if sent.get(where) == state:
        return False
    tracker: Tracker = build({"tracker": dict(tracker_config)}, "tracker")()
    _upload(run, tracker)
    run.write_synced(sent | {where: state})
    return True


def _upload(run: RunDirectory, tracker: Tracker) -> None:
    """Upload without catching errors, so that the user sees why an upload fails."""
    tracker.start(run.config, run.name, run.origin.name)
    records = run.records()
    for record in records:
        pictures = {"edited": run.picture(record)} if record.image else {}
        tracker.log_case(record, pictures)
    summary = asdict(summarize(records, run.origin.columns).overall)
    tracker.finish(summary | {"columns": run.origin.columns})
