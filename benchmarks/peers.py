"""Edits beside diffusers' pipelines, or beside another checkout of this package.

    python benchmarks/peers.py [--steps 20] [--batches 1 8]     # as zerocon bench --peers
    python benchmarks/peers.py --before ../older [--steps 6] [--batches 1 8] [--repeats 3]

With `--before`, one process for each checkout: they take turns, batch by batch, so that both meet
the same moments of the machine. The times are processor time of the inversion and the edit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
EDITS = {
    "pix2pix_zero": ["method=pix2pix_zero", "inversion=regularized", "direction=word_swap"],
    "zerocon": ["method=zerocon", "direction=word_swap"],
}
# What each checkout runs: it reads lines with overrides and a number of cases, and answers
# with seconds. Only names that older checkouts have, too.
CHILD = """
import json, sys, time
import torch
from zerocon.config.settings import compose_settings
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.quiet import quiet, quiet_models
quiet()
quiet_models()
torch.set_num_threads(1)
backbone = None
for line in sys.stdin:
    overrides, cases = json.loads(line)
    settings = compose_settings(overrides, worlds="edit")
    backbone = backbone or settings.backbone.load()
    if hasattr(backbone, "size"):
        dataset = settings.dataset(pixels=backbone.size)
    else:  # an earlier checkout
        dataset = settings.dataset(side=backbone.side)
    found = [dataset.load(case_id) for case_id in dataset.ids[:cases]]
    clean = backbone.encode(torch.stack([case.image for case in found]))
    texts = [case.source_prompt for case in found], [case.target_prompt for case in found]
    conditions = Conditions(*(backbone.embed(text) for text in (*texts, [""] * cases)))
    draws = Draws(0, [case.id for case in found])
    began = time.process_time()
    steps = settings.method.steps
    trajectory = settings.inversion(backbone, clean, conditions, steps, draws)
    between = time.process_time()
    edited = settings.method(backbone, trajectory, conditions, draws)
    took = between - began, time.process_time() - between
    print(json.dumps([took, edited.double().sum().item()]), flush=True)
"""


class Checkout:
    """A process that runs edits with the package in `folder`."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1"}
        self._process: Any = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, overrides: list[str], cases: int) -> tuple[list[float], float]:
        """Seconds of the inversion and of the edit, and a sum over the edited latents."""
        self._process.stdin.write(json.dumps([overrides, cases]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def compare(before: Path, steps: int, batches: list[int], repeats: int) -> None:
    older, newer = Checkout(before), Checkout(ROOT)
    for batch in batches:
        for name, overrides in EDITS.items():
            asked = [*overrides, f"method.steps={steps}", f"dataset.limit={batch}"]
            ratios: list[float] = []
            parts: list[tuple[float, ...]] = []
            differs = 0.0
            for repeat in range(repeats + 1):  # the first one warms up
                (old, was), (new, now) = older.run(asked, batch), newer.run(asked, batch)
                differs = max(differs, abs(now - was) / max(abs(was), 1e-9))
                if repeat:
                    ratios.append(sum(new) / sum(old))
                    parts.append(tuple(n / o for n, o in zip(new, old, strict=True)))
            inversion, edit = (statistics.median(side) for side in zip(*parts, strict=True))
            said = {
                "edit": name,
                "cases": batch,
                "ratio": round(statistics.median(ratios), 3),
                "spread": [round(min(ratios), 3), round(max(ratios), 3)],
                "inversion": round(inversion, 3),
                "method": round(edit, 3),
                "sum_of_latents_differs_by": differs,
            }
            print(json.dumps(said), flush=True)
    older.close()
    newer.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--before", type=Path, help="another checkout of this package")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    if given.before is not None:
        compare(given.before, given.steps, given.batches, given.repeats)
        return
    from zerocon.cli import main as zerocon

    batches = map(str, given.batches)
    asked = ["--steps", str(given.steps), "--repeats", str(given.repeats)]
    zerocon(["bench", "--peers", *asked, "--batches", *batches])


if __name__ == "__main__":
    main()
