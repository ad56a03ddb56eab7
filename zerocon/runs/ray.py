"""Ray's actors edit one run's chunks, on this machine or a cluster; records are written here.

Every node must see the run's directory under the same path (it holds the pictures).
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerocon.config.settings import RunSettings, settings_of
from zerocon.core.checks import ConfigError
from zerocon.runs.costs import rows_of
from zerocon.runs.processes import STILLBORN, Finished, Ready, WorkerError, prepared, worked
from zerocon.runs.progress import Working
from zerocon.runs.threads import chosen, workers_of
from zerocon.runs.work_queue import PATIENCE, Chunks, Recorder, Task, WorkQueue


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "runner.executor=ray needs Ray, which is not installed: pip install 'zerocon[ray]'; "
            "on one machine runner.executor=processes needs nothing more"
        ) from None
    return ray


class Actor:
    """What lives in an actor: the models, and how to edit with them."""

    def __init__(self, config: dict[str, Any], directory: Path, count: int) -> None:
        settings = replace(settings_of(config), directory=directory)
        threads = chosen(settings, count).threads  # of the actor's own machine
        self._editor, self._ready = prepared(settings, threads)

    def ready(self) -> Ready:
        return self._ready

    def edit(self, task: Task) -> Finished:
        return worked(self._editor, task)


class RayCrew:
    """`runner.workers` actors, each with a GPU where the cluster has some."""

    def __init__(self, settings: RunSettings) -> None:
        self._ray = _ray()
        self._settings = settings
        self._spent: dict[int, dict[str, Any]] = {}
        self._begun = not self._ray.is_initialized()
        self._actors: list[Any] = []
        try:
            if self._begun:
                address = settings.runner.ray_address
                self._ray.init(address=address, log_to_driver=False, include_dashboard=False)
            gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
            self._make = self._ray.remote(num_gpus=gpus, num_cpus=1, max_restarts=0)(Actor)
            self._actors += [self._start() for _ in range(workers_of(settings.runner))]
            ready = self._first()
        except BaseException:
            self.close()
            raise
        self.origin, self.dataset = ready.origin, settings.dataset(pixels=ready.size)

    def run(self, chunks: Chunks, record: Recorder) -> None:
        queue = WorkQueue(chunks, record)
        at_work: dict[Any, tuple[int, Task]] = {}  # what an actor has promised
        while True:
            busy = {number for number, _ in at_work.values()}
            for number in set(range(len(self._actors))) - busy:
                task = queue.next()
                if task is None:
                    break
                at_work[self._actors[number].edit.remote(task)] = number, task
            if not at_work and queue.exhausted and not queue.again:
                return
            self._collect(queue, at_work)

    def _collect(self, queue: WorkQueue, at_work: dict[Any, tuple[int, Task]]) -> None:
        if not at_work:
            time.sleep(PATIENCE)
            return
        kept, _ = self._ray.wait(list(at_work), timeout=None if queue.exhausted else PATIENCE)
        for promise in kept:
            number, task = at_work.pop(promise)
            try:
                finished: Finished = self._ray.get(promise)
            except self._ray.exceptions.RayActorError as error:
                self._actors[number] = self._start()
                queue.died(task, type(error).__name__)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            self._spent[number] = finished.spent
            queue.finished(task, finished.done)

    def working(self) -> list[Working]:
        """Actors tell their rows with each chunk that they finish."""
        rows = (rows_of(spent) for spent in list(self._spent.values()))
        return [Working(rows=found) for found in rows]

    def spent(self) -> list[dict[str, Any]]:
        return list(self._spent.values())

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._begun:
            self._ray.shutdown()

    def _start(self) -> Any:
        settings = self._settings
        directory = settings.directory.resolve()
        return self._make.remote(settings.config, directory, workers_of(settings.runner))

    def _first(self) -> Ready:
        reason = ""
        for _ in range(STILLBORN):
            try:
                return self._ray.get(self._actors[0].ready.remote())
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayActorError as error:
                self._actors[0] = self._start()
                reason = str(error).splitlines()[0]
        raise WorkerError(f"actors die before their models are loaded ({reason})")
