"""Edits for the page: one at a time, in a thread of their own, with progress, until stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from zerocon.api import Edit, check_blend, opened, remarks, request, settings_of_edit
from zerocon.backbones.base import Backbone
from zerocon.config.compose import compose_config
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.core.cases import Case
from zerocon.core.forward import Evaluations
from zerocon.core.pictures import case_pictures, from_uint8
from zerocon.core.quiet import quiet_models
from zerocon.demo.asked import Asked
from zerocon.demo.fields import COMPOSING, Given
from zerocon.runs.costs import Costs
from zerocon.runs.progress import Far
from zerocon.runs.shown import Curves, maps_of, similarity_of, watching
from zerocon.runs.tally import one_edit
from zerocon.runs.threads import chosen, use
from zerocon.runs.worker import prepare

log = logging.getLogger(__name__)
WAITING = Far(0, 0, "waiting for its turn")


class StoppedError(Exception):
    """The edit was stopped on the page."""


class Counter(Evaluations):
    """Counts evaluations as every backbone does, and ends the edit at the next if it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping: Event | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "forward":
            self.go_on()
        super().__setattr__(name, value)

    def go_on(self) -> None:
        stopping: Event | None = getattr(self, "stopping", None)
        if stopping is not None and stopping.is_set():
            raise StoppedError


@dataclass(frozen=True, eq=False)
class Made:
    """An edit with what the page shows of it."""

    asked: Asked
    source: Image.Image
    picture: Image.Image
    source_prompt: str  # the given one, or the caption that took its place
    seconds: float
    curves: Curves
    maps: Mapping[str, Image.Image]  # by "map source: word" and "map edited: word"
    similarity: NDArray[np.float32] | None  # cosines, [y, x]
    notes: Sequence[str] = ()


@dataclass(eq=False)
class Job:
    """An edit that was asked for. `far` says how far it is."""

    asked: Asked
    stopping: Event = field(default_factory=Event)
    far: Callable[[], Far] = field(default=lambda: WAITING)


class Studio:
    """The backbone, and the one thread in which it works."""

    def __init__(self, given: Given, plugins: Sequence[str] = ()) -> None:
        self.given, self.plugins = given, tuple(plugins)
        with COMPOSING:
            self.settings: RunSettings = settings_of_edit("a picture", given.of(given.method))
            usual = compose_config(given.of(given.method))["usual"]
        self._sites = str(usual["cut_sites"])
        self.threads = chosen(self.settings)
        self._pool = ThreadPoolExecutor(1, "zerocon-demo")
        self._counter = Counter()
        self._backbone: Future[Backbone] = self._pool.submit(self._load)
        self._pool.submit(self._warm)

    @property
    def world(self) -> str | None:
        return getattr(self.settings.backbone, "world", None)

    def _load(self) -> Backbone:
        quiet_models()
        use(self.threads.threads)
        backbone = self.settings.backbone.load()
        backbone.evaluations = self._counter
        return backbone

    def _warm(self) -> None:
        """Edit once for nothing, as a first edit imports and prepares much."""
        size = self.backbone().size
        gray = Image.new("RGB", (size.width, size.height), "gray")
        try:
            with COMPOSING:
                overrides = [*self.given.of(self.given.method), "method.steps=1"]
                settings = settings_of_edit("a picture", overrides)
            case = request(gray, size, "a picture", "another picture")
            edit = Edit(settings, self.backbone(), case, prepare(settings, self.backbone(), [case]))
            edit.picture(edit.sample())
        except Exception as error:  # noqa: BLE001 - the first edit says what is wrong
            log.info("no edit to warm up with: %s", error)

    @property
    def is_slow(self) -> bool:
        """Whether it is computed on the processor."""
        return str(getattr(self.settings.backbone, "device", "cpu")) == "cpu" or (
            not torch.cuda.is_available()
        )

    def backbone(self) -> Backbone:
        """Loaded, or the error why it can't be."""
        return self._backbone.result()

    def asked(
        self,
        picture: Path,
        shown: str,
        *,
        source: str,
        target: str,
        blend: Sequence[str],
        method: str,
        overrides: Sequence[str],
    ) -> Asked:
        """The edit, with its settings checked; the edited words only where they have an effect."""
        source, target = source.strip(), target.strip()
        every = [*self.given.of(method), *overrides]
        with COMPOSING:
            chosen_method = settings_of_edit(source, every).method
        uses = any(getattr(chosen_method, name, False) for name in ("local_blend", "masked"))
        old, new = (word.strip() for word in blend)
        words = (old, new) if uses and old and new else None
        return Asked(picture, shown, target, source, words, tuple(every), self.plugins)

    def begin(self, job: Job) -> Future[Made]:
        return self._pool.submit(self._made, job)

    def caption(self, picture: Path) -> str:
        """What the backbone's captioner says of the picture; waits for its turn."""
        return self._pool.submit(self._caption, picture).result()

    def _caption(self, picture: Path) -> str:
        with COMPOSING:
            overrides = ["method=zerocon", *self.given.overrides, "direction=caption"]
            direction: Any = compose_settings(_last_choice(overrides), worlds="edit").direction
        case = request(opened(picture), self.backbone().size, "", "a picture")
        return direction.captions([case])[0]

    def _made(self, job: Job) -> Made:
        backbone, costs = self.backbone(), Costs()
        asked = job.asked
        self._counter.stopping = job.stopping
        try:
            self._counter.go_on()
            with COMPOSING:
                settings = settings_of_edit(asked.source, asked.overrides)
            job.far = lambda: one_edit(settings, costs, backbone)
            given = opened(asked.picture)
            case = request(given, backbone.size, asked.source, asked.target, asked.blend)
            check_blend(settings, backbone, case)
            notes = remarks(given, backbone.size, self.world)
            started = time.perf_counter()
            with costs.batch(backbone, 1), watching(settings, on=True) as watcher:
                edit = Edit(settings, backbone, case, prepare(settings, backbone, [case]))
                with costs.of("inversion", backbone):
                    trajectory = edit.invert()
                with costs.of("editing", backbone):
                    latent = edit.sample(trajectory)
                picture = edit.picture(latent)
            seconds = time.perf_counter() - started
            own = edit.batch.cases[0]
            maps, similarity = self._looked_at(backbone, own, picture, settings.seed)
        finally:
            self._counter.stopping = None
        return Made(
            asked,
            case_pictures(case)["source"],
            picture,
            own.source_prompt,
            seconds,
            watcher.curves(1)[0],
            maps,
            similarity,
            notes,
        )

    def _looked_at(
        self, backbone: Backbone, case: Case, picture: Image.Image, seed: int
    ) -> tuple[dict[str, Image.Image], NDArray[np.float32] | None]:
        """Attention maps of words and the similarity of patches; no edit depends on them."""
        edited = from_uint8(np.array(picture)[None])[0]
        try:
            maps = maps_of(backbone, case, edited, seed)
            similarity = similarity_of(backbone, case, edited, self._sites, seed)
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - the edit is there; what else is shown is not
            log.warning("no maps of the edit: %s", error)
            return {}, None
        return {name: Image.fromarray(pixels) for name, pixels in maps.items()}, similarity

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _last_choice(overrides: Sequence[str]) -> list[str]:
    """Without choices of a group that a later one replaces."""
    keys = [override.partition("=")[0] for override in overrides]
    return [o for i, o in enumerate(overrides) if "." in keys[i] or keys[i] not in keys[i + 1 :]]
