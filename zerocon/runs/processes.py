"""Several processes on this machine edit one run's chunks; this one alone writes the records.

A worker that dies is replaced, and what it worked on is done again (see `Desk`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

from zerocon.config.settings import RunSettings, settings_of
from zerocon.core.checks import ConfigError
from zerocon.core.quiet import quiet, quiet_models
from zerocon.ledger.claims import Chunk
from zerocon.ledger.origin import Origin
from zerocon.runs.crews import PATIENCE, STRIKES, Chunks, Desk, Recorder
from zerocon.runs.worker import Done


class WorkerError(Exception):
    """Workers can't even begin. The message says how they ended."""


@dataclass(frozen=True)
class Ready:
    """A worker's first word: its models are loaded, and which they are."""

    origin: Origin
    side: int


@dataclass(frozen=True)
class Finished:
    done: Sequence[Done]
    spent: dict[str, Any]  # by this worker, so far


@dataclass
class Worker:
    """A process as its parent sees it."""

    number: int
    process: Any
    connection: Connection
    ready: bool = False
    chunk: Chunk | None = None  # what it works on

    @property
    def idle(self) -> bool:
        return self.ready and self.chunk is None


class Processes:
    """`runner.workers` processes, each with its own models (and GPU, where there are several)."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._spent: dict[int, dict[str, Any]] = {}  # by process id
        self._deaths = 0  # in a row, before a worker was ready
        self._workers = [self._start(i) for i in range(settings.runner.workers)]
        first = self._first()
        self.origin = first.origin
        self.dataset = settings.dataset(side=first.side)

    def run(self, chunks: Chunks, record: Recorder) -> None:
        desk = Desk(chunks, record)
        while True:
            self._hand_out(desk)
            busy = any(worker.chunk for worker in self._workers)
            if not busy and desk.exhausted and not desk.again:
                return
            self._listen(desk)

    def spent(self) -> list[dict[str, Any]]:
        return list(self._spent.values())

    def dismiss(self) -> None:
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.close()  # which it takes for its end
        for worker in self._workers:
            worker.process.join(PATIENCE)
            worker.process.kill()

    def _start(self, number: int) -> Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        runner = self._settings.runner
        process = context.Process(
            target=serve,
            args=(self._settings.config, self._settings.directory, number, runner.workers, theirs),
            daemon=True,
        )
        process.start()
        theirs.close()
        return Worker(number, process, cast("Connection", ours))

    def _first(self) -> Ready:
        """What the first worker that is ready says of its models."""
        while True:
            for worker in self._spoken(None):
                said = self._hear(worker, None)
                if isinstance(said, Ready):
                    return said

    def _hand_out(self, desk: Desk) -> None:
        for worker in self._workers:
            if not worker.idle:
                continue
            chunk = desk.next()
            if chunk is None:
                return
            worker.chunk = chunk
            with suppress(OSError):  # it is dead, as the next look will tell
                worker.connection.send(chunk.case_ids)

    def _listen(self, desk: Desk) -> None:
        waiting = any(worker.idle for worker in self._workers) and not desk.exhausted
        for worker in self._spoken(PATIENCE if waiting else None):
            said = self._hear(worker, desk)
            if isinstance(said, Ready):
                self._check(said)
            if isinstance(said, Finished) and worker.chunk is not None:
                self._spent[worker.process.pid] = said.spent
                chunk, worker.chunk = worker.chunk, None
                desk.finished(chunk, said.done)

    def _spoken(self, timeout: float | None) -> list[Worker]:
        by_connection = {worker.connection: worker for worker in self._workers}
        return [by_connection[cast("Connection", c)] for c in wait(list(by_connection), timeout)]

    def _hear(self, worker: Worker, desk: Desk | None) -> Ready | Finished | None:
        """A worker's message; None when it died (then another has its place)."""
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, desk)
            return None
        if isinstance(said, Exception):
            raise said
        worker.ready, self._deaths = True, 0
        return said

    def _replace(self, worker: Worker, desk: Desk | None) -> None:
        worker.process.join()
        reason = f"exit status {worker.process.exitcode}"
        if not worker.ready:
            self._deaths += 1
        if self._deaths >= STRIKES:
            raise WorkerError(f"workers die before their models are loaded ({reason})")
        self._workers[self._workers.index(worker)] = self._start(worker.number)
        if worker.chunk is not None and desk is not None:
            desk.died(worker.chunk, reason)

    def _check(self, ready: Ready) -> None:
        if ready.origin.backbone != self.origin.backbone:
            raise ConfigError(
                f"a worker loaded another backbone ({ready.origin.backbone}) than the first one "
                f"({self.origin.backbone})"
            )


def serve(
    config: dict[str, Any], directory: Path, number: int, count: int, connection: Connection
) -> None:
    """A worker's life: load, say so, then edit what is sent until the line is cut."""
    quiet()
    try:
        settings = replace(settings_of(placed(config, number)), directory=directory)
        editor, ready = prepared(settings, count)
        connection.send(ready)
        while True:
            case_ids = connection.recv()
            finished = editor.compute(editor.load(case_ids))
            _end_with_parent()  # nobody would record it, and another may be at work on it
            connection.send(Finished(list(editor.store(finished)), editor.spent()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:  # noqa: BLE001 - raised where it can be told: in the parent
        with suppress(OSError):
            connection.send(error)


def prepared(settings: RunSettings, count: int) -> tuple[Any, Ready]:
    """A worker's editor, with its share of the processor's cores."""
    import torch

    from zerocon.runs.results import origin_of
    from zerocon.runs.worker import Editor, load

    quiet_models()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    loaded = load(settings)
    origin = origin_of(settings, loaded.backbone, loaded.dataset, loaded.metrics)
    return Editor(settings, loaded), Ready(origin, loaded.backbone.side)


def placed(config: dict[str, Any], number: int) -> dict[str, Any]:
    """The config with the worker's own GPU, where the config leaves the choice."""
    import torch

    gpus = torch.cuda.device_count()
    backbone = config["backbone"]
    if not gpus or backbone.get("device") not in ("auto", "cuda"):
        return config
    return config | {"backbone": backbone | {"device": f"cuda:{number % gpus}"}}


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        raise EOFError
