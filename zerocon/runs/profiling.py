"""Where the time of a run goes: its cases in one thread, with a stopwatch at every part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zerocon.backbones.base import Backbone
from zerocon.config.settings import RunSettings
from zerocon.ledger.run_directory import RunDirectory
from zerocon.losses.base import Losses
from zerocon.metrics.base import Metric, Pictures
from zerocon.runs import worker
from zerocon.runs.costs import Costs
from zerocon.runs.measuring import Stopwatch, machine
from zerocon.runs.results import origin_of
from zerocon.runs.worker import Editor, Loaded, load

FORWARD, BACKWARD, LOSSES = "network, forward", "network and losses, backward", "losses, forward"
AUTOENCODER, TEXT, JUDGES = "autoencoder", "text and direction", "metrics and judges"
ARITHMETIC = "arithmetic of inversion and method"
FRAMEWORK = "pictures, records, and the rest"
SECTIONS = (FORWARD, BACKWARD, LOSSES, AUTOENCODER, TEXT, JUDGES, ARITHMETIC, FRAMEWORK)
OWN = (ARITHMETIC, FRAMEWORK)  # neither the models nor the metrics


@dataclass(frozen=True)
class Profile:
    """Seconds by section. `loading` happens once, and is in none of them."""

    machine: dict[str, Any]
    cases: int
    loading: float
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def own(self) -> float:
        """What is neither a model's nor a metric's."""
        return sum(self.seconds[name] for name in OWN)

    def said(self) -> dict[str, Any]:
        shares = {name: round(value / self.total, 4) for name, value in self.seconds.items()}
        return {
            "machine": self.machine,
            "cases": self.cases,
            "loading": round(self.loading, 3),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "shares": shares,
        }


def profile(settings: RunSettings) -> Profile:
    """Do the run in a temporary folder, without a cache, and say where its time went."""
    runner = replace(settings.runner, cache=0)
    with tempfile.TemporaryDirectory() as folder:
        settings = replace(settings, runner=runner, directory=Path(folder) / "run")
        before = Stopwatch(torch.device("cpu"))
        with before.of("loading"):
            loaded = load(settings)
        backbone = loaded.backbone
        watch = Stopwatch(backbone.device, dict.fromkeys(SECTIONS, 0.0))
        with watch.of(FRAMEWORK), _watched(settings, backbone, watch):
            _run(settings, loaded, watch)
        return Profile(
            machine(backbone.device, backbone.dtype),
            len(loaded.dataset.ids),
            before.seconds["loading"],
            watch.seconds,
        )


def _run(settings: RunSettings, loaded: Loaded, watch: Stopwatch) -> None:
    """What a crew does for every chunk: read, edit, score, store, record."""
    metrics: list[Any] = [_TimedMetric(metric, watch) for metric in loaded.metrics]
    editor = Editor(settings, replace(loaded, metrics=metrics))
    editor.costs = _TimedCosts(watch)
    run, ids = RunDirectory(settings.directory), list(loaded.dataset.ids)
    run.path.mkdir(parents=True, exist_ok=True)
    origin_of(settings, loaded.backbone, loaded.dataset, loaded.metrics)
    with run.log(retry_failed=True) as records:
        for first in range(0, len(ids), settings.runner.chunk_size):
            chunk = ids[first : first + settings.runner.chunk_size]
            finished = editor.compute(editor.load(chunk, frozenset(chunk)))
            records.append_all([record for record, _ in editor.store(finished)])


class _TimedMetric:
    def __init__(self, metric: Metric, watch: Stopwatch) -> None:
        self._metric, self._watch = metric, watch

    def __call__(self, pictures: Pictures) -> Any:
        with self._watch.of(JUDGES):
            return self._metric(pictures)


class _TimedCosts(Costs):
    """The stages of an edit are the method's own but for what is timed inside them."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self._watch = watch

    @contextmanager
    def of(self, stage: str, backbone: Backbone) -> Generator[None]:
        with self._watch.of(ARITHMETIC), super().of(stage, backbone):
            yield


@contextmanager
def _watched(settings: RunSettings, backbone: Any, watch: Stopwatch) -> Generator[None]:
    """Put a stopwatch at the models and the losses, for the length of the block."""
    network = getattr(backbone, "unet", None) or backbone.transformer
    places: Sequence[tuple[Any, str, str]] = (
        (torch.autograd, "grad", BACKWARD),
        (Losses, "__call__", LOSSES),
        (backbone, "encode", AUTOENCODER),
        (backbone, "decode", AUTOENCODER),
        (backbone, "embed", TEXT),
        (type(settings.direction), "__call__", TEXT),
        (worker, "with_sources", TEXT),
    )
    with ExitStack() as undone:
        for owner, name, section in places:
            undone.enter_context(_replaced(owner, name, section, watch))
        undone.enter_context(_hooked(network, watch))
        yield


@contextmanager
def _replaced(owner: Any, name: str, section: str, watch: Stopwatch) -> Generator[None]:
    own = vars(owner).get(name)
    action: Callable[..., Any] = getattr(owner, name)

    def timed(*given: Any, **named: Any) -> Any:
        with watch.of(section):
            return action(*given, **named)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)


@contextmanager
def _hooked(network: torch.nn.Module, watch: Stopwatch) -> Generator[None]:
    """Around each of the network's passes, also those that end at their last recording."""

    def enter(*_: Any) -> None:
        watch.enter(FORWARD)

    def leave(*_: Any) -> None:
        watch.leave()

    hooks = (
        network.register_forward_pre_hook(enter),
        network.register_forward_hook(leave, always_call=True),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
