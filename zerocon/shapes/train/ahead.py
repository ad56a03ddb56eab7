"""Batches drawn by other processes, ahead of a GPU that would otherwise wait for them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Generic, TypeVar

import torch

B = TypeVar("B")

_draw: list[Callable[[int], Any]] = []  # of this worker process


class Ahead(Generic[B]):
    """`draw(step)`, computed by processes for the next steps while this one is used.

    Without processes it is computed when it is asked for. The processes are forks, so that the
    scenes need not be sent to them: enter before the GPU is used.
    """

    def __init__(self, draw: Callable[[int], B], processes: int) -> None:
        self._draw, self._processes = draw, processes
        self._pool: ProcessPoolExecutor | None = None
        self._coming: dict[int, Future[B]] = {}

    def __enter__(self) -> Ahead[B]:
        if self._processes:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"
            fork = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(self._processes, fork, _become, (self._draw,))
            self._pool.submit(os.getpid).result()  # starts all of them
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> B:
        if self._pool is None:
            return self._draw(step)
        for later in range(step, step + 3 * self._processes):
            if later not in self._coming:
                self._coming[later] = self._pool.submit(_drawn, later)
        return self._coming.pop(step).result()


def _become(draw: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    _draw.append(draw)


def _drawn(step: int) -> Any:
    return _draw[0](step)
