"""The interface of crews, and the queue that hands chunks to workers that may die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from zerocon.core.cases import Dataset
from zerocon.core.records import Record
from zerocon.ledger.claims import Chunk, Waiting
from zerocon.ledger.origin import Origin
from zerocon.runs.progress import Working
from zerocon.runs.worker import Done

DEATHS = 2  # workers that a chunk, or a case alone, may lose before something else is tried
PATIENCE = 0.2  # seconds between looks at what other processes still work on
GRACE = 1.0  # seconds that Ctrl-C leaves for a batch that is being stored

Chunks = Iterator[Chunk | Waiting]
Recorder = Callable[[Chunk, Sequence[Done]], None]


class Crew(Protocol):
    """One worker or many, with their models loaded."""

    origin: Origin
    dataset: Dataset

    def run(self, chunks: Chunks, record: Recorder) -> None:
        """Edit every chunk, and have each recorded as soon as it is done."""
        ...

    def working(self) -> list[Working]:
        """What each worker is at; called by another thread."""
        ...

    def spent(self) -> list[dict[str, Any]]:
        """What the work cost, one entry a worker."""
        ...

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        ...


@dataclass(frozen=True)
class Task:
    """What a worker is sent: a chunk, or one case of it alone."""

    chunk: Chunk
    alone: str | None = None
    is_trial: bool = False  # only to see whether the case kills its worker; nothing is stored

    @property
    def case_ids(self) -> tuple[str, ...]:
        return self.chunk.case_ids if self.alone is None else (self.alone,)

    @property
    def left(self) -> frozenset[str]:
        return self.chunk.left if self.alone is None else frozenset(self.case_ids)


@dataclass
class _Deaths:
    """What is known about a chunk that workers died with."""

    whole: int = 0
    alone: dict[str, int] = field(default_factory=dict[str, int])
    on_trial: set[str] = field(default_factory=set[str])


@dataclass
class WorkQueue:
    """Hands chunks to workers that may die, and finds out the cases that kill them.

    A chunk whose worker died is done again as a whole. After the second death its cases are
    tried one by one. A case that loses two more workers alone is a failed record. If every
    case survives alone, the deaths had other causes: the chunk is done again as a whole, so that
    its pictures are those of an undisturbed run. Only if that costs two more workers, the
    cases are edited and recorded one by one.
    """

    chunks: Chunks
    record: Recorder
    again: deque[Task] = field(default_factory=deque[Task])
    exhausted: bool = False
    _deaths: dict[int, _Deaths] = field(default_factory=dict[int, _Deaths], init=False)

    def next(self) -> Task | None:
        """Something to do, or None just now (ask again unless `exhausted`)."""
        if self.again:
            return self.again.popleft()
        try:
            chunk = next(self.chunks)
        except StopIteration:
            self.exhausted = True
            return None
        return Task(chunk) if isinstance(chunk, Chunk) else None

    def finished(self, task: Task, done: Sequence[Done]) -> None:
        if task.is_trial:
            self._tried(task.chunk, str(task.alone))
        else:
            self.record(task.chunk, done)

    def died(self, task: Task, reason: str) -> None:
        """Handle a worker's death: repeat the task, try it case by case, or mark it failed."""
        deaths = self._deaths.setdefault(task.chunk.start, _Deaths())
        if task.alone is None:
            deaths.whole += 1
            self.again += self._after_death(task, deaths)
            return
        deaths.alone[task.alone] = deaths.alone.get(task.alone, 0) + 1
        if deaths.alone[task.alone] < DEATHS:
            self.again.append(task)
        else:
            self._give_up(task.chunk, task.alone, deaths, reason)

    def _after_death(self, task: Task, deaths: _Deaths) -> Iterable[Task]:
        chunk = task.chunk
        if deaths.whole % DEATHS:
            return [task]
        is_trial = deaths.whole == DEATHS
        suspects = [case_id for case_id in chunk.case_ids if case_id in chunk.left]
        deaths.on_trial = set(suspects) if is_trial else set()
        return [Task(chunk, case_id, is_trial) for case_id in suspects]

    def _give_up(self, chunk: Chunk, case_id: str, deaths: _Deaths, reason: str) -> None:
        times = deaths.whole + deaths.alone[case_id]
        self.record(chunk, [(_lost(case_id, times, reason), {})])
        if case_id in deaths.on_trial:
            self._tried(chunk, case_id)

    def _tried(self, chunk: Chunk, case_id: str) -> None:
        """After the last trial the chunk is done as a whole, without the cases that killed."""
        deaths = self._deaths[chunk.start]
        deaths.on_trial.discard(case_id)
        if deaths.on_trial:
            return
        guilty = {name for name, times in deaths.alone.items() if times >= DEATHS}
        kept = tuple(name for name in chunk.case_ids if name not in guilty)
        if chunk.left - guilty:
            self.again.append(Task(replace(chunk, case_ids=kept, left=chunk.left - guilty)))


def _lost(case_id: str, times: int, reason: str) -> Record:
    error = f"its worker died {times} times ({reason})"
    return Record(case=case_id, status="failed", error=error)
