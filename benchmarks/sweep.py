"""Cost of a sweep, compared with separate runs without a cache, and of repeating it.

    python benchmarks/sweep.py [--variants 20] [--cases 20] [--steps 50] [--separate 20]
                               [--folder DIR]

The variants are weights of the contrastive loss. Times are of whole commands, including imports.
With `--separate 5` only five separate runs are done, and their mean is used for the others.
`--folder` keeps the runs and the times; existing ones are not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerocon.ledger.run_directory import RunDirectory

ROOT = Path(__file__).parent.parent
IMPORTS = "import zerocon.commands.run, zerocon.runs.results, hydra"  # what a finished run needs


def timed(command: Sequence[str], folder: Path) -> float:
    """Seconds of a whole process with a separate cache of inversions."""
    environment = os.environ | {"ZEROCON_CACHE": str(folder / "cache")}
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def run(folder: Path, weights: Sequence[float], cases: int, steps: int, *more: str) -> float:
    sweep = ["-m"] if len(weights) > 1 else []
    chosen = ",".join(map(str, weights))
    return timed(
        [
            *(sys.executable, "run.py", *sweep, f"loss.cut_weight={chosen}"),
            *(f"method.steps={steps}", f"dataset.limit={cases}", f"runner.root={folder / 'runs'}"),
            *more,
        ],
        folder,
    )


def rows(folder: Path) -> dict[str, int]:
    """Rows through the U-Net in all runs of a folder: inversion, source branch, edit."""
    sessions = [
        s for d in sorted((folder / "runs").glob("run-*")) for s in RunDirectory(d).sessions()
    ]
    forward = _total(sessions, "unet_forward", "editing")
    beside = _total(sessions, "unet_reference", "editing")
    return {
        "inversion": _total(sessions, "unet_forward", "inversion"),
        "reference": beside,
        "edit": forward - beside,
        "edit_backward": _total(sessions, "unet_backward", "editing"),
    }


def _total(sessions: Sequence[dict[str, Any]], what: str, stage: str) -> int:
    return sum(session[what][stage] for session in sessions)


class Times:
    """Seconds by name, each saved to a file at once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}

    def __setitem__(self, name: str, seconds: float) -> None:
        self.known[name] = round(seconds, 2)
        self.file.write_text(json.dumps(self.known))

    def __contains__(self, name: str) -> bool:
        return name in self.known


def measure(folder: Path, given: argparse.Namespace) -> None:
    weights = [round(0.05 * (i + 1), 2) for i in range(given.variants)]
    times = Times(folder / "times.json")
    if "sweep" not in times:
        times["sweep"] = run(folder / "sweep", weights, given.cases, given.steps)
    for weight in weights[:: max(1, given.variants // given.separate)][: given.separate]:
        if (name := f"separate {weight}") not in times:
            own = folder / name.replace(" ", "-")
            times[name] = run(own, [weight], given.cases, given.steps, "runner.cache=0")
    again = run(folder / "sweep", weights, given.cases, given.steps)
    imports = timed([sys.executable, "-c", IMPORTS], folder)
    alone = [seconds for name, seconds in times.known.items() if name.startswith("separate")]
    separate = sum(alone) / len(alone) * given.variants
    told = {
        "sweep_seconds": times.known["sweep"],
        "separate_seconds": round(separate, 1),
        "of_which_measured": len(alone),
        "ratio": round(times.known["sweep"] / separate, 3),
        "again_seconds": round(again, 2),
        "again_without_imports": round(again - imports, 2),
        "rows": rows(folder / "sweep"),
    }
    print(json.dumps(told, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--separate", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, given)


if __name__ == "__main__":
    main()
