"""Seconds and memory of the parts of a run, one case at a time and in batches.

    python benchmarks/speed.py [--steps 10] [--batches 1 4 10] [--device cpu]

Compare only ratios within one run: times vary between machines, and over time on one machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import torch

from zerocon.backbones.shapes import Shapes
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.quiet import quiet
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.ddim import DDIM


def seconds(action: Callable[[], object], repeats: int) -> float:
    """The fastest of several repeats, after a warm-up."""
    action()
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times)


def measure(device: str, batch: int, steps: int, repeats: int) -> dict[str, float]:
    """Seconds per case of each part."""
    backbone = Shapes(device=device).load()
    images = torch.rand(batch, 3, *backbone.size)
    prompts = [f"a big red circle on a gray background {i}" for i in range(batch)]
    source = backbone.embed(prompts)
    clean = backbone.encode(images)
    conditions = Conditions(source, source, source)
    draws = Draws(0, prompts)
    trajectory = DDIMInversion()(backbone, clean, conditions, steps, draws)
    method = DDIM(steps=steps, guidance=4.0)
    parts: dict[str, Callable[[], object]] = {
        "encode": lambda: backbone.encode(images),
        "embed": lambda: backbone.embed(prompts),
        "invert": lambda: DDIMInversion()(backbone, clean, conditions, steps, draws),
        "sample": lambda: method(backbone, trajectory, conditions, draws),
        "decode": lambda: backbone.decode(clean),
    }
    return {name: seconds(action, repeats) / batch for name, action in parts.items()}


def main() -> None:
    quiet()
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--batches", type=int, nargs="+", default=[1, 4, 10])
    options.add_argument("--device", default="auto")
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    rows = {b: measure(given.device, b, given.steps, given.repeats) for b in given.batches}
    first = rows[given.batches[0]]
    for batch, row in rows.items():
        faster = {name: round(first[name] / value, 2) for name, value in row.items()}
        milliseconds = {name: round(1000 * value, 2) for name, value in row.items()}
        print(json.dumps({"batch": batch, "ms_per_case": milliseconds, "faster": faster}))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_memory_mib": round(peak), "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
