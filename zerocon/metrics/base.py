"""The interface of metrics.

The `protocol` says how numbers are computed. `masked`: as the column's name says, over the
measured pixels only. `published`: as in the evaluation behind PIE-Bench's table, quirks
included. Metrics for which both agree take the setting, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from zerocon.core.cases import Case
from zerocon.core.checks import one_of

T = TypeVar("T")
Area = Literal["whole", "background", "edited"]
Better = Literal["higher", "lower", ""]
ProtocolName = Literal["masked", "published"]


@dataclass(frozen=True)
class Column:
    """One number of a record. Its value is in `unit`: 12.3 with unit "1e-3" means 0.0123."""

    name: str
    unit: str
    better: Better
    digits: int
    area: Area = "whole"  # the measured pixels; their share is `bg_share`
    takes: str = "0..1"  # value range and preprocessing of the pictures
    judge: str = ""  # the fingerprint of its judge's weights
    judge_name: str = ""  # description of the judge
    needs_truth: bool = False  # whether it needs a ground truth; nan for cases without one


@dataclass(frozen=True, eq=False)
class Pictures:
    """One batch to score. All pictures are [case, 3, y, x] in 0..1."""

    cases: Sequence[Case]
    source: Tensor
    edited: Tensor
    mask: Tensor  # [case, 1, y, x], 1 = edited region; nan for cases without one
    ground_truth: Tensor  # nan for cases without one
    _known: dict[tuple[int, str], tuple[object, Any]] = field(
        default_factory=dict[tuple[int, str], tuple[object, Any]], init=False, repr=False
    )

    def __post_init__(self) -> None:
        check_range("the source pictures", self.source)
        check_range("the edited pictures", self.edited)
        check_range("the masks", self.mask, may_lack=True)
        check_range("the ground truth", self.ground_truth, may_lack=True)
        if self.edited.shape != self.source.shape:
            raise ValueError(
                f"edited pictures of shape {list(self.edited.shape)} can't be compared with "
                f"sources of shape {list(self.source.shape)}"
            )

    @classmethod
    def of(cls, cases: Sequence[Case], edited: Tensor) -> Pictures:
        """The batch of these cases with their edited pictures, on the pictures' device.

        Metrics compute in double precision, which Apple's GPUs lack; then it is the CPU.
        """
        edited = edited.cpu() if edited.device.type == "mps" else edited
        source = torch.stack([case.image for case in cases]).to(edited)
        absent = torch.full_like(source[0], torch.nan)
        masks = [absent[:1] if c.mask is None else c.mask.to(edited) for c in cases]
        truths = [absent if c.ground_truth is None else c.ground_truth.to(edited) for c in cases]
        return cls(cases, source, edited, torch.stack(masks), torch.stack(truths))

    @property
    def background(self) -> Tensor:
        """1 where nothing should change, [case, 1, y, x]; all 0 without a mask."""
        return (1 - self.mask).nan_to_num(0.0)

    @property
    def region(self) -> Tensor:
        """1 where the edit belongs, [case, 1, y, x]; all 0 without a mask."""
        return self.mask.nan_to_num(0.0)

    def weight(self, area: Area) -> Tensor:
        """1 inside `area`, [case, 1, y, x]; all 0 for cases without a mask."""
        if area == "whole":
            return torch.ones_like(self.mask)
        return self.background if area == "background" else self.region

    def once(self, maker: object, what: str, compute: Callable[[], T]) -> T:
        """The result of `maker` for this batch, computed once and shared by all metrics."""
        if not self.knows(maker, what):
            self.keep(maker, what, compute())
        return self._known[id(maker), what][1]

    def knows(self, maker: object, what: str) -> bool:
        return (id(maker), what) in self._known

    def keep(self, maker: object, what: str, found: object) -> None:
        self._known[id(maker), what] = (
            maker,
            found,
        )  # keeps the maker alive, so that its id stays unique


class Judge(Protocol):
    """Weights that metrics judge by. Tables show their `title` (text), or else their class."""

    @property
    def fingerprint(self) -> str:
        """A digest of the weights, or their name on the hub."""
        ...


class Metric(Protocol):
    """Computes its columns for each case, float64; nan where there is nothing to measure.

    If a metric's judge was trained on one kind of pictures, a static method
    `world_of(**settings)` returns it without loading the judge: "shapes", "photographs" or None.
    """

    @property
    def columns(self) -> tuple[Column, ...]: ...
    @property
    def fingerprint(self) -> str:
        """The fingerprint of its judge's weights, "" without a judge."""
        ...

    def __call__(self, pictures: Pictures) -> dict[str, Tensor]: ...


@contextmanager
def full_precision() -> Generator[None]:
    """Disable TF32 and pick convolutions deterministically, so metrics run in full float32."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def chosen(
    known: Sequence[Column],
    names: Sequence[str] | None,
    default: Sequence[str],
    judge: Judge | None = None,
) -> tuple[Column, ...]:
    """The requested columns in the requested order, each with its judge."""
    by_name = {column.name: column for column in known}
    for name in names or ():
        one_of("a metric's column", name, list(by_name))
    columns = tuple(by_name[name] for name in names or default)
    return tuple(judged(column, judge) for column in columns) if judge else columns


def judged(column: Column, judge: Judge) -> Column:
    title = getattr(judge, "title", type(judge).__name__)
    return replace(column, judge=judge.fingerprint, judge_name=title)


def check_range(name: str, values: Tensor, *, may_lack: bool = False) -> None:
    """Raise for values outside 0..1; `may_lack` allows nan for what a case does not have."""
    if values.ndim != 4:
        raise ValueError(f"{name} must be [case, channel, y, x], not {list(values.shape)}")
    if not values.numel():
        return
    known = values.nan_to_num(0.0, math.inf, -math.inf) if may_lack else values
    low, high = torch.stack(known.aminmax()).tolist()  # one pass; nan if any value is nan
    if math.isnan(low):
        raise ValueError(f"{name} hold nan")
    if not 0 <= low <= high <= 1:
        raise ValueError(f"{name} must be in 0..1, but are in {low:.4g}..{high:.4g}")


def where_measured(values: Tensor, weight: Tensor) -> Tensor:
    """`values` [case] as float64, nan for cases whose `weight` [case, 1, h, w] is all 0."""
    return values.double().masked_fill(weight.flatten(1).sum(1) == 0, torch.nan)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """The mean over pixels and channels, weighted per pixel; nan if all weights are 0, [case]."""
    values, weight = values.double(), weight.double()
    total = (values.mean(1, keepdim=True) * weight).flatten(1).sum(1)
    return total / weight.flatten(1).sum(1)
