"""Where the package's own `conf/` and `experiments/` are.

In a checkout they are at the top level, beside the package; in an installed wheel, inside it.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


CONF = _folder("conf")
EXPERIMENTS = _folder("experiments")
