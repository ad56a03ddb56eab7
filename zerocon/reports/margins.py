"""Margins of non-inferiority: how much worse a run may be and still pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zerocon.core.checks import ConfigError
from zerocon.reports.statistics import Paired

TAIL = 0.025
FEW = 10  # pairs that differ, below which a bootstrap's interval is too narrow


@dataclass(frozen=True)
class Margin:
    """Of a metric: in its unit as tables show it, or as a share of the baseline's mean."""

    metric: str
    size: float
    relative: bool = False

    @classmethod
    def read(cls, text: str) -> Margin:
        """From `edit_success=0.05` or `lpips_bg=10%`."""
        metric, _, size = text.partition("=")
        try:
            value = float(size.removesuffix("%"))
        except ValueError:
            value = math.nan
        if not metric or not value > 0 or math.isinf(value):
            raise ConfigError(
                f"--margin {text}: write a metric and how much worse it may be, such as "
                "edit_success=0.05 or lpips_bg=10%"
            )
        relative = size.endswith("%")
        return cls(metric, value / 100 if relative else value, relative)

    def of(self, baseline: float) -> float:
        return self.size * abs(baseline) if self.relative else self.size

    def words(
        self, baseline: float, test: Paired, better: str, decided: tuple[int, int] | None = None
    ) -> str:
        """Whether the 95 % interval of the mean difference keeps within the margin.

        `decided`: of a metric that is 0 or 1, in how many pairs it got better and worse. If these
        are few, resampling them says too little, and the share of worse pairs is bounded exactly.
        """
        allowed = self.of(baseline)
        share = f" ({100 * self.size:g} % of {baseline:.3g})" if self.relative else ""
        said = f"{self.metric}: margin {allowed:.3g}{share}"
        if test.by_ranks or math.isnan(test.low):
            return f"{said}: there is no interval to judge by"
        worst = -test.low if better == "higher" else test.high
        if decided is not None and sum(decided) < FEW:
            worst = share_at_most(decided[1], test.n)
        verdict = "not worse by more than the margin" if worst <= allowed else "not shown"
        return f"{said}, at most {max(worst, 0.0):.3g} worse with 95 % confidence: {verdict}"


def margins_of(texts: Sequence[str], known: Sequence[str]) -> list[Margin]:
    """The margins; ConfigError if one is of a metric without a better direction here."""
    found = [Margin.read(text) for text in texts]
    for margin in found:
        if margin.metric not in known:
            raise ConfigError(
                f"--margin {margin.metric}: compared here are {', '.join(known)}, of which one "
                "direction is better"
            )
    return found


def share_at_most(found: int, of: int) -> float:
    """The upper end of Clopper and Pearson's two-sided 95 % interval of a share."""
    if found >= of:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        low, high = (share, high) if _at_most(found, of, share) > TAIL else (low, share)
    return high


def _at_most(found: int, of: int, share: float) -> float:
    """The probability of so few."""
    logs = (
        math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
        + k * math.log(share) + (of - k) * math.log1p(-share)
        for k in range(found + 1)
    )  # fmt: skip
    return sum(map(math.exp, logs))
