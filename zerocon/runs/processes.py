"""Several processes on this machine edit one run's chunks; only this process writes the records.

A worker that dies is replaced, and what it worked on is done again (see `WorkQueue`).
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Lock, Thread
from typing import Any, cast

from zerocon.config.settings import RunSettings, settings_of
from zerocon.core.checks import ConfigError
from zerocon.core.quiet import quiet, quiet_models
from zerocon.core.size import Size
from zerocon.ledger.origin import Origin
from zerocon.runs.progress import Working
from zerocon.runs.threads import threads_of, workers_of
from zerocon.runs.work_queue import PATIENCE, Chunks, Recorder, Task, WorkQueue
from zerocon.runs.worker import Done

STILLBORN = 3  # workers in a row that die before their models are loaded end the run


class WorkerError(Exception):
    """Workers can't even begin. The message says how they ended."""


@dataclass(frozen=True)
class Ready:
    """A worker's first message: its models are loaded, and which they are."""

    origin: Origin
    size: Size  # of the pictures


@dataclass(frozen=True)
class Finished:
    done: Sequence[Done]
    spent: dict[str, Any]  # by this worker, so far


TELL_EVERY = 0.5  # seconds between two messages of a worker about its progress


@dataclass
class Worker:
    """A process as its parent sees it."""

    number: int
    process: Any
    connection: Connection
    ready: bool = False
    task: Task | None = None  # what it works on
    working: Working = field(default_factory=Working)  # how far it said it is

    @property
    def idle(self) -> bool:
        return self.ready and self.task is None


class ProcessCrew:
    """`runner.workers` processes, each with its own models (and GPU, where there are several)."""

    def __init__(self, settings: RunSettings) -> None:
        self._settings = settings
        self._spent: dict[int, dict[str, Any]] = {}  # by process id
        self._deaths = 0  # in a row, before a worker was ready
        self._workers: list[Worker] = []
        self._threads = threads_of(settings).threads
        self._lost = 0  # rows of workers that died
        try:
            self._workers += [self._start(i) for i in range(workers_of(settings.runner))]
            first = self._first()
        except BaseException:
            self.close()
            raise
        self.origin = first.origin
        self.dataset = settings.dataset(pixels=first.size)

    def run(self, chunks: Chunks, record: Recorder) -> None:
        queue = WorkQueue(chunks, record)
        while True:
            self._hand_out(queue)
            busy = any(worker.task for worker in self._workers)
            if not busy and queue.exhausted and not queue.again:
                return
            self._listen(queue)

    def working(self) -> list[Working]:
        return [*(worker.working for worker in list(self._workers)), Working(rows=self._lost)]

    def spent(self) -> list[dict[str, Any]]:
        return list(self._spent.values())

    def close(self) -> None:
        """Idle workers end when their connection closes; those at work are killed."""
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.close()
        if all(worker.idle for worker in self._workers):
            wait([worker.process.sentinel for worker in self._workers], PATIENCE)
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def _start(self, number: int) -> Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve,
            args=(self._settings.config, self._settings.directory, number, self._threads, theirs),
            daemon=True,
        )
        with without_interrupts():
            process.start()
        theirs.close()
        return Worker(number, process, cast("Connection", ours))

    def _first(self) -> Ready:
        """What the first worker that is ready says of its models."""
        while True:
            for worker in self._heard_from(None):
                said = self._hear(worker, None)
                if isinstance(said, Ready):
                    return said

    def _hand_out(self, queue: WorkQueue) -> None:
        for worker in self._workers:
            if not worker.idle:
                continue
            task = queue.next()
            if task is None:
                return
            worker.task = task
            with suppress(OSError):  # it is dead, as the next look will tell
                worker.connection.send(task)

    def _listen(self, queue: WorkQueue) -> None:
        waiting = any(worker.idle for worker in self._workers) and not queue.exhausted
        for worker in self._heard_from(PATIENCE if waiting else None):
            said = self._hear(worker, queue)
            if isinstance(said, Ready):
                self._check(said)
            if isinstance(said, Finished) and worker.task is not None:
                self._spent[worker.process.pid] = said.spent
                task, worker.task = worker.task, None
                queue.finished(task, said.done)

    def _heard_from(self, timeout: float | None) -> list[Worker]:
        by_connection = {worker.connection: worker for worker in self._workers}
        return [by_connection[cast("Connection", c)] for c in wait(list(by_connection), timeout)]

    def _hear(self, worker: Worker, queue: WorkQueue | None) -> Ready | Finished | None:
        """A worker's message; None if it only said how far it is, or died and was replaced."""
        try:
            said = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, queue)
            return None
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Working):
            worker.working = said
            return None
        worker.ready, self._deaths = True, 0
        return said

    def _replace(self, worker: Worker, queue: WorkQueue | None) -> None:
        worker.connection.close()
        worker.process.join(PATIENCE)
        worker.process.kill()  # in case it lives on without its connection
        worker.process.join()
        self._lost += worker.working.rows
        reason = f"exit status {worker.process.exitcode}"
        if not worker.ready:
            self._deaths += 1
        if self._deaths >= STILLBORN:
            raise WorkerError(f"workers die before their models are loaded ({reason})")
        self._workers[self._workers.index(worker)] = self._start(worker.number)
        if worker.task is not None and queue is not None:
            queue.died(worker.task, reason)

    def _check(self, ready: Ready) -> None:
        if ready.origin.backbone != self.origin.backbone:
            raise ConfigError(
                f"a worker loaded another backbone ({ready.origin.backbone}) than the first one "
                f"({self.origin.backbone})"
            )


@contextmanager
def without_interrupts() -> Generator[None]:
    """Start processes that ignore Ctrl-C: their parent ends them and prints the message.

    The signal is delayed, not lost: the parent receives it at the end of the block.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(
    config: dict[str, Any], directory: Path, number: int, threads: int, connection: Connection
) -> None:
    """A worker's main loop: load, report ready, then edit tasks until the connection closes."""
    quiet()
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        settings = replace(settings_of(placed(config, number)), directory=directory)
        editor, ready = prepared(settings, threads)
        send = Locked(connection).send
        send(ready)
        Thread(target=lambda: _tell(editor, send), daemon=True).start()
        while True:
            send(worked(editor, connection.recv()))
    except (EOFError, ConnectionError):
        return  # the parent has closed the connection
    except Exception as error:  # noqa: BLE001 - raised where it can be told: in the parent
        with suppress(OSError):
            connection.send(sendable(error))


class Locked:
    """A connection that several threads send to."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._turn = connection, Lock()

    def send(self, message: object) -> None:
        with self._turn:
            self._connection.send(message)


def _tell(editor: Any, send: Callable[[object], None]) -> None:
    """Tell the parent how far this worker is, whenever that has changed."""
    before: Working | None = None
    while True:
        time.sleep(TELL_EVERY)
        now = editor.working()
        if now != before:
            try:
                send(now)
            except OSError:  # the parent has closed the connection
                return
            before = now


def worked(editor: Any, task: Task) -> Finished:
    """Do the task; a trial stores nothing."""
    finished = editor.compute(editor.load(task.case_ids, task.left))
    done = [] if task.is_trial else list(editor.store(finished))
    return Finished(done, editor.spent())


def sendable(error: Exception) -> Exception:
    """The error itself if it can be pickled and read again, else its words."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever a class outside makes of it
        return WorkerError(f"{type(error).__name__}: {error}")
    return error


def prepared(settings: RunSettings, threads: int) -> tuple[Any, Ready]:
    """A worker's editor, which computes with that many threads."""
    from zerocon.runs.results import origin_of
    from zerocon.runs.threads import use
    from zerocon.runs.worker import Editor, load

    quiet_models()
    use(threads)
    loaded = load(settings)
    origin = origin_of(settings, loaded.backbone, loaded.dataset, loaded.metrics)
    return Editor(settings, loaded), Ready(origin, loaded.backbone.size)


def placed(config: dict[str, Any], number: int) -> dict[str, Any]:
    """The config with the worker's own GPU, where the config leaves the choice."""
    import torch

    gpus = torch.cuda.device_count()
    backbone = config["backbone"]
    if not gpus or backbone.get("device") not in ("auto", "cuda"):
        return config
    return config | {"backbone": backbone | {"device": f"cuda:{number % gpus}"}}


def _end_with_parent() -> None:
    """End this process as soon as its parent dies, since nobody would record its work."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
