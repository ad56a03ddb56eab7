"""Edit a run's chunks in this process, in several, or on Ray. The records are the same."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from zerocon.config.settings import RunSettings
from zerocon.ledger.claims import Chunk, Waiting
from zerocon.runs.progress import Working
from zerocon.runs.results import origin_of
from zerocon.runs.threads import threads_of, use
from zerocon.runs.work_queue import GRACE, PATIENCE, Chunks, Crew, Recorder
from zerocon.runs.worker import Editor, load


def start_crew(settings: RunSettings) -> Crew:
    if settings.runner.executor == "processes":
        from zerocon.runs.processes import ProcessCrew

        return ProcessCrew(settings)
    if settings.runner.executor == "ray":
        from zerocon.runs.ray import RayCrew

        return RayCrew(settings)
    return LocalCrew(settings)


class LocalCrew:
    """Edit in this process; threads read and store pictures while the model computes."""

    def __init__(self, settings: RunSettings) -> None:
        use(threads_of(settings).threads)
        loaded = load(settings)
        self.origin = origin_of(settings, loaded.backbone, loaded.dataset, loaded.metrics)
        self.dataset = loaded.dataset
        self._editor = Editor(settings, loaded)

    def run(self, chunks: Chunks, record: Recorder) -> None:
        reader, writer = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        stored: Future[None] | None = None
        try:
            for chunk, batch in self._ahead(chunks, reader):
                finished = self._editor.compute(batch.result())
                if stored is not None:
                    stored.result()  # raises what went wrong there
                stored = writer.submit(self._store, chunk, finished, record)
            if stored is not None:
                stored.result()
        except BaseException as error:
            if stored is not None:  # it has been computed, so let it be recorded
                wait([stored], None if isinstance(error, Exception) else GRACE)
            raise
        finally:
            self._editor.stop()
            for pool in (reader, writer):
                pool.shutdown(wait=False, cancel_futures=True)

    def _ahead(self, chunks: Chunks, reader: ThreadPoolExecutor) -> Iterator[tuple[Chunk, Any]]:
        """Yield each chunk with its pictures while the next chunk's are being read."""
        ready: deque[tuple[Chunk, Any]] = deque()
        for chunk in chunks:
            if isinstance(chunk, Chunk):
                ready.append((chunk, reader.submit(self._editor.load, chunk.case_ids, chunk.left)))
            if isinstance(chunk, Waiting) or len(ready) > 1:
                if ready:
                    yield ready.popleft()
                else:
                    time.sleep(PATIENCE)
        yield from ready

    def _store(self, chunk: Chunk, finished: Any, record: Recorder) -> None:
        record(chunk, list(self._editor.store(finished)))

    def working(self) -> list[Working]:
        return [self._editor.working()]

    def spent(self) -> list[dict[str, Any]]:
        return [self._editor.spent()]

    def close(self) -> None:
        self._editor.stop()
