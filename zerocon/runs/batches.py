"""How many cases a run edits together: as asked, or as many as were found to fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from zerocon.ledger.atomic import write_atomic

FILE = "batch_size.json"


class BatchSize:
    """The largest batch that fits into the memory of a kind of device.

    What was found (measured for `auto`, or halved after a batch that did not fit) is kept in the
    run's directory, so that a run that is continued cuts its batches as before. It counts as
    long as `runner.batch_size` and the kind of device are the same.
    """

    def __init__(self, directory: Path, asked: int | Literal["auto"], device: torch.device) -> None:
        self._file = directory / FILE
        self._given = {"asked": asked, "device": _kind(device)}
        self._found = self._read()
        if self._found is None and asked != "auto":
            self._found = asked

    @property
    def known(self) -> bool:
        return self._found is not None

    @property
    def cases(self) -> int:
        assert self._found is not None
        return self._found

    def measured(self, cases: int) -> None:
        """Note what fits, unless another process of the run has noted it before."""
        self._keep(self._read() or cases)

    def halve(self, too_many: int) -> None:
        """A batch of that many did not fit; nor will those after it."""
        before = self._read()
        self._keep(min(too_many // 2, before or too_many))

    def _keep(self, cases: int) -> None:
        self._found = cases
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._file, json.dumps(self._given | {"fits": cases}).encode() + b"\n")

    def _read(self) -> int | None:
        try:
            said: Any = json.loads(self._file.read_bytes())
            same = all(said[name] == value for name, value in self._given.items())
            return max(1, int(said["fits"])) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _kind(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
