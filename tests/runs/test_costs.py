"""A sweep over a method's settings inverts each case once; what was spent is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from zerocon.config.settings import compose_settings
from zerocon.runs import runner
from zerocon.runs.costs import Costs
from zerocon.runs.worker import is_out_of_memory
from zerocon.shapes.benchmark import write_benchmark

QUICK = ["metrics.clip=null", "metrics.lpips=null", "metrics.structure=null", "metrics.truth=null"]
CASES, STEPS = 2, 2


@pytest.mark.slow
def test_a_sweep_inverts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROCON_CACHE", str(tmp_path / "cache"))
    write_benchmark(tmp_path / "pie", 20, "test")
    spent = [session_of(tmp_path, guidance) for guidance in (2.0, 3.0)]
    assert [s["unet_forward"]["inversion"] for s in spent] == [CASES * STEPS, 0]
    assert [s["inversions_found"] for s in spent] == [0, CASES]
    # With guidance, each step sees the text and the empty text.
    assert [s["unet_forward"]["editing"] for s in spent] == [2 * CASES * STEPS] * 2
    assert all(s["peak_bytes"] > 10**6 for s in spent)


def session_of(root: Path, guidance: float) -> dict[str, dict[str, int]]:
    settings = compose_settings(
        [
            f"runner.root={root / 'runs'}",
            f"dataset.root={root / 'pie'}",
            f"dataset.limit={CASES}",
            "method=word_swap",
            f"method.guidance={guidance}",
            f"method.steps={STEPS}",
            "backbone.device=cpu",
            *QUICK,
        ]
    )
    directory = runner.execute(settings).directory
    (line,) = (directory / "sessions.jsonl").read_text().splitlines()
    return json.loads(line)


def test_what_counts_as_too_little_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert Costs().forward == {"inversion": 0, "editing": 0}
