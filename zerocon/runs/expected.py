"""How many rows through the network an edit will take, before the first one has shown it.

Used for the time left only. A run's first batch replaces these numbers by its own counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerocon.config.settings import RunSettings

USUAL_STEPS = 50
# Rows per step and case, forward and backward, with guidance on.
INVERSIONS: Mapping[str, float] = {
    "NoInversion": 0, "NullTextInversion": 23, "FixedPointInversion": 3, "RFSolverInversion": 2,
}  # fmt: skip
METHODS: Mapping[str, float] = {
    "CDS": 6, "ConsistEdit": 5, "DDIM": 2, "DDS": 4, "DNAEdit": 2, "FTEdit": 4, "FlowAlign": 3,
    "FlowEdit": 2, "HEdit": 6, "InfEdit": 5, "KVEdit": 3, "MasaCtrl": 4, "P2P": 4, "PnP": 3,
    "RFInversionEdit": 2, "SDEdit": 1.4, "TurboEdit": 2, "UniEdit": 1.3, "ValueInjection": 3,
    "ZeroCon": 6,
}  # fmt: skip
OF_OTHERS = 4.0  # a method from outside the package: source and edit, each guided


def expected(settings: RunSettings) -> dict[str, float]:
    """Rows per case, by stage."""
    steps = _steps(settings.method, USUAL_STEPS)
    inverted = INVERSIONS.get(type(settings.inversion).__name__, 1.0)
    edited = METHODS.get(type(settings.method).__name__, OF_OTHERS)
    return {
        "inversion": inverted * _steps(settings.inversion, steps),
        "editing": edited * steps,
    }


def _steps(choice: Any, otherwise: int) -> int:
    found = getattr(choice, "steps", None)
    return found if isinstance(found, int) else otherwise
