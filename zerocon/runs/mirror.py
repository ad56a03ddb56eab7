"""Telling a tracker of runs after they ended, from their records: nothing but files is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from zerocon.config.bind import build
from zerocon.config.settings import stored_config
from zerocon.core.naming import digest
from zerocon.ledger.atomic import write_atomic
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import FILE_NAME, read_records
from zerocon.reports.summary import summarize
from zerocon.trackers.base import Tracker

FILE = "synced.json"  # tracker -> digest of the records it was told


def sync(directory: Path, tracker_config: Mapping[str, Any]) -> bool:
    """Tell the tracker all of the run, unless it was told the same before: was it told?"""
    origin, told = Origin.read(directory), _told(directory)
    if origin is None or not (directory / FILE_NAME).exists():
        return False
    where = digest(dict(tracker_config))
    state = digest({"records": (directory / FILE_NAME).read_text()})
    if told.get(where) == state:
        return False
    tracker: Tracker = build({"tracker": dict(tracker_config)}, "tracker")()
    _tell(directory, origin, tracker)
    content = json.dumps(told | {where: state}, indent=2) + "\n"
    write_atomic(directory / FILE, content.encode())
    return True


def _told(directory: Path) -> dict[str, str]:
    file = directory / FILE
    return json.loads(file.read_text()) if file.exists() else {}


def _tell(directory: Path, origin: Origin, tracker: Tracker) -> None:
    """Unguarded: an upload that fails is what the user wants to hear of."""
    tracker.start(stored_config(directory), directory.name, origin.name)
    records = read_records(directory)
    for record in records:
        pictures = {"edited": Image.open(directory / record.image)} if record.image else {}
        tracker.log_case(record, pictures)
    tracker.finish(asdict(summarize(records, origin.columns).overall))
