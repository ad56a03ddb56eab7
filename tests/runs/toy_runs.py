"""Runs without models: toys that take a moment, and whose pictures depend on their batch."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from zerocon.config.settings import RunSettings, compose_settings
from zerocon.core.cases import Case
from zerocon.core.records import Record
from zerocon.ledger import code
from zerocon.ledger.origin import Origin
from zerocon.ledger.records import read_records, save_image
from zerocon.runs import results, runner
from zerocon.runs.crews import LocalCrew
from zerocon.runs.progress import Working

FORK = get_context("fork")
COUNT = 23
PAUSE = 0.004  # seconds, at most, before each thing that a toy does


class ToyDataset:
    name, fingerprint = "toy", "toy"

    def __init__(self, count: int) -> None:
        self.ids = [f"case {i}" for i in range(count)]

    def load(self, case_id: str) -> Case:
        return Case(case_id, torch.zeros(3, 8, 8), "a", "b")

    def case_digest(self, case_id: str, hasher: object) -> str:
        return case_id


Toy = tuple[Sequence[str], frozenset[str]]  # a batch, and which of it are wanted


class ToyEditor:
    """Records its cases; dies at cases with deadly names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def load(self, case_ids: Sequence[str], wanted: frozenset[str]) -> Toy:
        return case_ids, wanted

    def stop(self) -> None:
        pass

    def compute(self, batch: Toy) -> Toy:
        nap()
        with (self.directory.parent / "worked").open("a") as file:
            file.write("".join(f"{case_id}\n" for case_id in batch[0]))
        for case_id in batch[0]:
            deadly = self.directory.parent / f"{case_id} is deadly"
            if deadly.exists():
                die_of(deadly)
        return batch

    def store(self, batch: Toy) -> Iterator[tuple[Record, dict[str, Image.Image]]]:
        case_ids, wanted = batch
        for case_id in (one for one in case_ids if one in wanted):
            nap()
            digest = hashlib.sha256(repr((case_id, tuple(case_ids))).encode()).digest()
            pixels = np.resize(np.frombuffer(digest, np.uint8), (8, 8, 3))
            image, sha256 = save_image(self.directory, case_id, Image.fromarray(pixels))
            metrics = {"psnr": float(pixels.mean())}
            yield Record(case=case_id, status="ok", image=image, sha256=sha256, metrics=metrics), {}

    def working(self) -> Working:
        return Working()

    def spent(self) -> dict[str, Any]:
        return {"unet_forward": {"inversion": 1}}


def die_of(deadly: Path) -> None:
    """As often as the file says, or always."""
    times = deadly.read_text()
    if times != "always":
        left = int(times) - 1
        deadly.write_text(str(left)) if left else deadly.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def nap() -> None:
    time.sleep(random.random() * PAUSE)


def toy_origin(count: int) -> Origin:
    column = {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2}
    backbone = {"name": "toy", "fingerprint": "toy"}
    provenance = {"code": code.code_digest(), "git": {"revision": None}}
    ids = ToyDataset(count).ids
    return Origin("toy", ids, [column], "masked", backbone, backbone, {}, False, provenance)


class ToyCrew(LocalCrew):
    count = COUNT

    def __init__(self, settings: RunSettings) -> None:
        self.dataset: Any = ToyDataset(self.count)
        self.origin = toy_origin(self.count)
        self._editor: Any = ToyEditor(settings.directory)


def use_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use toy editors without output in all runs."""
    for module in (runner, results):
        if hasattr(module, "CONSOLE"):
            monkeypatch.setattr(module, "CONSOLE", Console(file=io.StringIO()))
    monkeypatch.setattr(runner, "start_crew", ToyCrew)


def settings_at(root: Path, *more: str) -> RunSettings:
    root.mkdir(parents=True, exist_ok=True)
    settings = compose_settings([f"runner.root={root}", "runner.batch_size=4", *more])
    object.__setattr__(settings, "dataset", lambda pixels: ToyDataset(ToyCrew.count))
    return settings


def in_child(settings: RunSettings) -> Any:
    process = FORK.Process(target=_execute, args=(settings,))
    process.start()
    return process


def _execute(settings: RunSettings) -> None:
    random.seed(os.getpid())
    runner.execute(settings)


def content(directory: Path) -> dict[str, Any]:
    """All that has to be the same: the records but for their order, and the pictures' bytes.

    Not the half of a picture that a kill has just left: it is swept away when it is older.
    """
    lines = {r.case: (r.status, r.sha256, dict(r.metrics)) for r in read_records(directory)}
    pictures = {p.name: p.read_bytes() for p in (directory / "images").glob("case*.png")}
    return {"records": lines, "pictures": pictures}


def lines_of(directory: Path) -> int:
    file = directory / "records.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def worked_on(root: Path) -> int:
    file = root / "worked"
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_for_work(root: Path, amount: int, child: Any) -> None:
    """Wait until it has worked on that many more cases, or has ended."""
    before = worked_on(root)
    while worked_on(root) < before + amount and child.is_alive():
        time.sleep(0.001)
