"""Who edits a run's chunks: this process, several, or Ray's. The records are the same."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from zerocon.config.settings import RunSettings
from zerocon.core.cases import Dataset
from zerocon.ledger.claims import Chunk
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import Record
from zerocon.runs.results import origin_of
from zerocon.runs.worker import Done, Editor, load

STRIKES = 3  # a case that this many workers died with is a failed record
PATIENCE = 0.2  # seconds between looks at what other processes still work on

Chunks = Iterator[Chunk | None]  # None: nothing to do just now
Recorder = Callable[[Chunk, Sequence[Done]], None]


class Crew(Protocol):
    """One worker or many, with their models loaded."""

    origin: Origin
    dataset: Dataset

    def run(self, chunks: Chunks, record: Recorder) -> None:
        """Edit every chunk, and have each recorded as soon as it is done."""
        ...

    def spent(self) -> list[dict[str, Any]]:
        """What the work cost, one entry a worker."""
        ...

    def dismiss(self) -> None: ...


def hire(settings: RunSettings) -> Crew:
    if settings.runner.executor == "processes":
        from zerocon.runs.processes import Processes

        return Processes(settings)
    if settings.runner.executor == "ray":
        from zerocon.runs.ray import RayCrew

        return RayCrew(settings)
    return Local(settings)


class Local:
    """This process. Pictures are read ahead and stored behind while the model works."""

    def __init__(self, settings: RunSettings) -> None:
        loaded = load(settings)
        self.origin = origin_of(settings, loaded.backbone, loaded.dataset, loaded.metrics)
        self.dataset = loaded.dataset
        self._editor = Editor(settings, loaded)

    def run(self, chunks: Chunks, record: Recorder) -> None:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            stored: Future[None] | None = None
            ahead = self._ahead(chunks, reader)
            for chunk, batch in ahead:
                finished = self._editor.compute(batch.result())
                if stored is not None:
                    stored.result()  # raises what went wrong there
                stored = writer.submit(self._store, chunk, finished, record)
            if stored is not None:
                stored.result()

    def _ahead(self, chunks: Chunks, reader: ThreadPoolExecutor) -> Iterator[tuple[Chunk, Any]]:
        """Each chunk with its pictures, while those of the next are being read."""
        waiting: deque[tuple[Chunk, Any]] = deque()
        for chunk in chunks:
            if chunk is not None:
                waiting.append((chunk, reader.submit(self._editor.load, chunk.case_ids)))
            if chunk is None or len(waiting) > 1:
                if waiting:
                    yield waiting.popleft()
                else:
                    time.sleep(PATIENCE)
        yield from waiting

    def _store(self, chunk: Chunk, finished: Any, record: Recorder) -> None:
        record(chunk, list(self._editor.store(finished)))

    def spent(self) -> list[dict[str, Any]]:
        return [self._editor.spent()]

    def dismiss(self) -> None:
        pass


@dataclass
class Desk:
    """Hands chunks to workers that may die, and counts what they died with.

    A chunk comes back whole once. After that its cases are tried one by one, which tells the
    case that kills its worker from its batch-mates.
    """

    chunks: Chunks
    record: Recorder
    again: deque[Chunk] = field(default_factory=deque[Chunk])
    exhausted: bool = False
    strikes: dict[str, int] = field(default_factory=dict[str, int])

    def next(self) -> Chunk | None:
        """Something to do, or None just now (ask again unless `exhausted`)."""
        if self.again:
            return self.again.popleft()
        try:
            return next(self.chunks)
        except StopIteration:
            self.exhausted = True
            return None

    def finished(self, chunk: Chunk, done: Sequence[Done]) -> None:
        self.record(chunk, done)

    def died(self, chunk: Chunk, reason: str) -> None:
        """Its worker is gone: to be done again, or, at the third strike, failed."""
        for case_id in chunk.case_ids:
            self.strikes[case_id] = self.strikes.get(case_id, 0) + 1
        most = max(self.strikes[case_id] for case_id in chunk.case_ids)
        if most < STRIKES - 1:
            self.again.append(chunk)
        elif len(chunk.case_ids) > 1:
            self.again += [Chunk(chunk.start, chunk.stop, (i,)) for i in chunk.case_ids]
        elif most < STRIKES:
            self.again.append(chunk)
        else:
            lost = [_lost(case_id, most, reason) for case_id in chunk.case_ids]
            self.finished(chunk, [(record, {}) for record in lost])


def _lost(case_id: str, times: int, reason: str) -> Record:
    error = f"its worker died {times} times ({reason})"
    return Record(case=case_id, status="failed", error=error)
