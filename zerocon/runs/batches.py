"""The batch size of a run: the one asked for, or the largest that fits into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch

from zerocon.ledger.atomic import write_atomic

FILE = "batch_size.json"


class BatchSize:
    """The largest batch that fits into the memory of one kind of device.

    The size (measured for `auto`, or halved after a batch that did not fit) is stored in the
    run's directory, so that a continued run has the same batches. It is valid as long as
    `runner.batch_size` and the kind of device stay the same.
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
        """Store the size that fits, unless another process of the run has stored one."""
        self._keep(self._read() or cases)

    def halve(self, too_many: int) -> None:
        """Halve the size after a batch of `too_many` cases did not fit."""
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
