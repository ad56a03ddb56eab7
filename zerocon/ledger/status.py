"""A run's progress and the cost of its sessions, read from its directory alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zerocon.core.records import Record
from zerocon.ledger.claims import is_claimed

State = Literal["done", "failed", "partial", "running"]
STATES: tuple[State, ...] = ("done", "failed", "partial", "running")


@dataclass(frozen=True)
class Status:
    """`done`: every case is recorded; `failed`: all are recorded, but some failed; `partial`:
    some have no record; `running`: a process works on them now."""

    state: State
    cases: int
    recorded: int
    failed: int

    @property
    def left(self) -> int:
        return self.cases - self.recorded

    def words(self) -> str:
        failed = f", {self.failed} of them failed" if self.failed else ""
        return f"{self.state}: {self.recorded} of {self.cases} cases are recorded{failed}"


def status(case_ids: Sequence[str], records: Sequence[Record], *, running: bool) -> Status:
    wanted = set(case_ids)
    recorded = [record for record in records if record.case in wanted]
    failed = sum(not record.ok for record in recorded)
    left = len(wanted) - len(recorded)
    return Status(_state(running, left, failed), len(wanted), len(recorded), failed)


def _state(running: bool, left: int, failed: int) -> State:
    if running:
        return "running"
    if left:
        return "partial"
    return "failed" if failed else "done"


def is_running(directory: Path) -> bool:
    """Return whether another process holds a claim on any of its cases."""
    return is_claimed(directory)


def read_sessions(file: Path) -> list[dict[str, Any]]:
    """The cost of each session and worker; a line torn by a kill is ignored."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [session for session in map(_parsed, lines) if session is not None]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
