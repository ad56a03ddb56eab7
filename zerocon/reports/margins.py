"""Margins of non-inferiority: how much worse a run may be and still pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zerocon.core.checks import ConfigError
from zerocon.reports.statistics import Paired


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

    def words(self, baseline: float, test: Paired, better: str) -> str:
        """Whether the 95 % interval of the mean difference keeps within the margin."""
        allowed = self.of(baseline)
        share = f" ({100 * self.size:g} % of {baseline:.3g})" if self.relative else ""
        said = f"{self.metric}: margin {allowed:.3g}{share}"
        if test.by_ranks or math.isnan(test.low):
            return f"{said}: there is no interval to judge by"
        worst = -test.low if better == "higher" else test.high
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
