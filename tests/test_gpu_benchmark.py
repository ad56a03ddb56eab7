"""`benchmarks/gpu.py`, whose parts only a GPU can time, runs on a small network here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = ["machine", "peak", "eager_zerocon", "memory", "profile", "forward_passes", "sdxl_memory"]


@pytest.mark.slow
def test_its_parts_run_on_a_processor(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    given = ["--tiny", "--device", "cpu", "--seconds", "200", "--out", str(out), "--parts", *PARTS]
    subprocess.run([sys.executable, "benchmarks/gpu.py", *given], check=True, timeout=250)
    found = json.loads(out.read_text())
    said = {name: found[name] for name in PARTS}
    assert not [name for name, part in said.items() if "error" in part or "skipped" in part]
    assert said["eager_zerocon"]["images_per_minute"] > 0
    assert said["profile"]["milliseconds_of_a_step"] > 0
    assert said["sdxl_memory"]["seconds_per_step"] > 0
