"""A contiguous part of a run's cases, for one of several machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from zerocon.core.checks import ConfigError


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def read(cls, text: str) -> Shard:
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"runner.shard is {text!r}; it must be like 3/8: part 3 of 8")
        return cls(int(found[1]), int(found[2]))

    def places(self, total: int) -> range:
        return range(
            total * (self.number - 1) // self.count,
            total * self.number // self.count,
        )

    def of(self, ids: Sequence[str]) -> Sequence[str]:
        places = self.places(len(ids))
        return ids[places.start : places.stop]
