"""What a direction is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from zerocon.backbones.base import Backbone
from zerocon.cases import Case


class Direction(Protocol):
    """The target condition of each case, [case, token, width]."""

    def __call__(self, backbone: Backbone, cases: Sequence[Case]) -> Tensor: ...
