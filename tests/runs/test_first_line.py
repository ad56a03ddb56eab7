"""A command's first line comes before PyTorch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import every

# Runs a command in a process that can't import torch, which ends it there.
WITHOUT_TORCH = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("no torch here")

sys.meta_path.insert(0, Refused())
from zerocon.cli import main
main(sys.argv[1:])
"""
RUN = ["dataset.subset=1", "method.steps=2"]


@pytest.mark.parametrize(
    ("arguments", "first"),
    every(
        4,
        [
            (["run", *RUN], "run: ZeroCon on Shapes"),
            (["run", "-m", "method=pnp,sdedit", "name=two"], "two: PnP on Shapes"),
            (["edit", "circle.png", "--target", "a blue circle"], "edit of circle.png"),
            (["bench", "--count", "sdedit"], "bench"),
            (["experiment", "pnp_ablation"], "pnp_ablation"),
            (["experiment", "pnp_tuning"], "pnp_tuning"),
            (["experiment", "fair_comparison"], "fair_comparison"),
            (["shapes", "check", "--captions", "1"], "the packaged models"),
            (["demo"], "demo"),
        ],
    ),
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_the_first_line_does_not_wait_for_torch(
    arguments: list[str], first: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "no torch here" in done.stderr.splitlines()[-1]  # it ended there
    assert done.stderr.splitlines()[0] == f"{first}; loading PyTorch, then the models"
