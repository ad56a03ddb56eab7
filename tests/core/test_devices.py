"""What is sent to a GPU, without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from zerocon.core.devices import sent


def test_an_expanded_tensor_is_made_whole_before_it_is_pinned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Memory that several elements share can't be pinned; only a GPU's driver says so."""
    pinned: list[Tensor] = []

    class Pinned:
        def to(self, device: torch.device, *, non_blocking: bool) -> str:
            assert non_blocking
            return f"on {device}"

    def pin(tensor: Tensor) -> Pinned:
        pinned.append(tensor)
        return Pinned()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    like: Any = SimpleNamespace(device=torch.device("cuda"))
    assert sent(torch.arange(4).expand(3, -1), like) == "on cuda"
    assert pinned[0].is_contiguous()
    assert torch.equal(pinned[0], torch.arange(4).repeat(3, 1))
