"""How far a run is, from its directory alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zerocon.ledger.claims import is_claimed
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import FILE_NAME, Record, read_records

State = Literal["done", "failed", "partial", "running"]
STATES: tuple[State, ...] = ("done", "failed", "partial", "running")


@dataclass(frozen=True)
class Status:
    """`done`: every case is recorded; `failed`: so it is, but some of them failed; `partial`:
    some are left; `running`: somebody is at work on them."""

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


def status_of(directory: Path) -> Status:
    origin = Origin.read(directory)
    wanted = set(origin.case_ids) if origin else set[str]()
    records = [r for r in _records(directory) if r.case in wanted]
    failed = sum(not r.ok for r in records)
    left = len(wanted) - len(records)
    return Status(_state(directory, left, failed), len(wanted), len(records), failed)


def _state(directory: Path, left: int, failed: int) -> State:
    if is_running(directory):
        return "running"
    if left:
        return "partial"
    return "failed" if failed else "done"


def _records(directory: Path) -> Sequence[Record]:
    return read_records(directory) if (directory / FILE_NAME).exists() else []


def is_running(directory: Path) -> bool:
    """Return whether another process holds a claim on any of its cases."""
    return is_claimed(directory)
