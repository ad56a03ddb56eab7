"""The models of one run, kept for the next one of a sweep or an experiment.

Only inside `kept_between_runs`, and only the last backbone and the last judges: a sweep over a
method's settings loads each model once, and one over backbones never holds two of them.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:  # a command that only hands its runs out imports no torch
    from zerocon.backbones.base import Backbone
    from zerocon.config.settings import RunSettings
    from zerocon.metrics.base import Metric

AUTO = "auto"


@dataclass
class Models:
    """What is kept, by its kind, and what it was loaded for."""

    open: bool = False
    kept: dict[str, tuple[str, Any]] = field(default_factory=dict[str, tuple[str, Any]])

    def get(self, kind: str, asked: Mapping[str, Any], load: Callable[[], Any]) -> Any:
        """The kept model, if it was loaded for the same settings from the same files."""
        if not self.open:
            return load()
        key = json.dumps([asked, list(_files(asked))], sort_keys=True, default=str)
        known, model = self.kept.get(kind, ("", None))
        if known != key:
            self.kept.pop(kind, None)
            del model  # before the next one takes memory
            free_memory()
            model = load()
            self.kept[kind] = key, model
        return model


MODELS = Models()


@contextmanager
def kept_between_runs() -> Generator[None]:
    """Inside, runs of this process take over the models of the run before, where they are equal."""
    before, MODELS.open = MODELS.open, True
    try:
        yield
    finally:
        MODELS.open = before
        if not before:
            MODELS.kept.clear()


def backbone_of(settings: RunSettings) -> Backbone:
    """The run's backbone, its counters at zero."""
    asked = settings.config["backbone"]
    if asked.get("compile") == AUTO:  # whether it is compiled depends on the run's cases
        return settings.backbone.load()
    backbone: Backbone = MODELS.get("backbone", asked, settings.backbone.load)
    counted = backbone.evaluations
    counted.forward = counted.backward = counted.reference = 0
    return backbone


def metrics_of(settings: RunSettings) -> list[Metric]:
    """The run's metrics with their judges."""
    return MODELS.get("metrics", settings.config["metrics"], settings.metrics)


def _files(node: Any) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of all files that the settings name: they may change between runs."""
    if isinstance(node, Mapping):
        for value in cast("Mapping[str, Any]", node).values():
            yield from _files(value)
    elif isinstance(node, str) and ("/" in node or node.startswith((".", "~"))):
        place = Path(node).expanduser()
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            with suppress(OSError):  # a link to nothing; loading says what is wrong
                stat = file.stat()
                yield str(file), stat.st_size, stat.st_mtime_ns


def free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
