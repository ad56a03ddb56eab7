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
from zerocon.ledger.claims import Chunk
from zerocon.runs.crews import PATIENCE, STRIKES, Chunks, Desk, Recorder
from zerocon.runs.processes import Finished, Ready, WorkerError, prepared


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
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
        self._editor, self._ready = prepared(settings, count)

    def ready(self) -> Ready:
        return self._ready

    def edit(self, case_ids: tuple[str, ...]) -> Finished:
        return Finished(self._editor(case_ids), self._editor.spent())


class RayCrew:
    """`runner.workers` actors, each with a GPU where the cluster has some."""

    def __init__(self, settings: RunSettings) -> None:
        self._ray = _ray()
        self._settings = settings
        self._spent: dict[int, dict[str, Any]] = {}
        self._begun = not self._ray.is_initialized()
        if self._begun:
            self._ray.init(
                address=settings.runner.ray_address, log_to_driver=False, include_dashboard=False
            )
        gpus = 1 if self._ray.cluster_resources().get("GPU") else 0
        self._make = self._ray.remote(num_gpus=gpus, num_cpus=1, max_restarts=0)(Actor)
        self._actors = [self._start() for _ in range(settings.runner.workers)]
        ready = self._first()
        self.origin, self.dataset = ready.origin, settings.dataset(side=ready.side)

    def run(self, chunks: Chunks, record: Recorder) -> None:
        desk = Desk(chunks, record)
        at_work: dict[Any, tuple[int, Chunk]] = {}  # what an actor has promised
        while True:
            busy = {number for number, _ in at_work.values()}
            for number in set(range(len(self._actors))) - busy:
                chunk = desk.next()
                if chunk is None:
                    break
                at_work[self._actors[number].edit.remote(chunk.case_ids)] = number, chunk
            if not at_work and desk.exhausted and not desk.again:
                return
            self._collect(desk, at_work)

    def _collect(self, desk: Desk, at_work: dict[Any, tuple[int, Chunk]]) -> None:
        if not at_work:
            time.sleep(PATIENCE)
            return
        kept, _ = self._ray.wait(list(at_work), timeout=None if desk.exhausted else PATIENCE)
        for promise in kept:
            number, chunk = at_work.pop(promise)
            try:
                finished: Finished = self._ray.get(promise)
            except self._ray.exceptions.RayActorError as error:
                self._actors[number] = self._start()
                desk.died(chunk, type(error).__name__)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            self._spent[number] = finished.spent
            desk.finished(chunk, finished.done)

    def spent(self) -> list[dict[str, Any]]:
        return list(self._spent.values())

    def dismiss(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)
        if self._begun:
            self._ray.shutdown()

    def _start(self) -> Any:
        settings = self._settings
        directory = settings.directory.resolve()
        return self._make.remote(settings.config, directory, settings.runner.workers)

    def _first(self) -> Ready:
        reason = ""
        for _ in range(STRIKES):
            try:
                return self._ray.get(self._actors[0].ready.remote())
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except self._ray.exceptions.RayActorError as error:
                self._actors[0] = self._start()
                reason = str(error).splitlines()[0]
        raise WorkerError(f"actors die before their models are loaded ({reason})")
