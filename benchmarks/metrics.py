"""Cost of metrics: time per case, alone and in a batch; memory by number of cases.

    python benchmarks/metrics.py speed [--batch 16] [--threads 2]
    python benchmarks/metrics.py memory [--cases 50 200 700]

`speed` measures wall time or, with --processor, CPU time, which other programs on the machine
hardly affect. `memory` writes ShapesPIE's ground truths as outputs and scores them with `zerocon
score`, in a new process per number of cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zerocon.config.bind import metrics_of
from zerocon.config.compose import compose_config, plain
from zerocon.core.cases import Case
from zerocon.core.quiet import quiet
from zerocon.core.size import Size
from zerocon.datasets.shapes import ShapesPIE
from zerocon.metrics.base import Metric
from zerocon.runs.worker import score

LARGEST = 700


def seconds(action: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """The fastest of several repeats, after a warm-up."""
    action()
    times: list[float] = []
    for _ in range(repeats):
        started = clock()
        action()
        times.append(clock() - started)
    return min(times)


def speed(batch: int, repeats: int, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """For each group of metrics, milliseconds per case alone and in a batch, and their ratio."""
    dataset = ShapesPIE(LARGEST, "test", Size.square(64))
    cases = [dataset.load(case_id) for case_id in dataset.ids[:batch]]
    settings = plain(compose_config(["metrics=full"]))
    groups: dict[str, dict[str, Any]] = settings["metrics"]
    found: dict[str, dict[str, float]] = {}
    for name in [n for n in groups if n != "protocol"]:
        alone = {"metrics": {"protocol": "masked", name: groups[name]}}
        found[name] = _timed(metrics_of(alone)(), cases, repeats, clock)
    return found | {"all together": _timed(metrics_of(settings)(), cases, repeats, clock)}


def _timed(
    metrics: list[Metric], cases: list[Case], repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    edited = torch.stack([case.image.flip(2) for case in cases])
    one = seconds(lambda: score(metrics, cases[:1], edited[:1]), repeats, clock)
    many = seconds(lambda: score(metrics, cases, edited), repeats, clock) / len(cases)
    return {
        "ms_alone": round(1e3 * one, 2),
        "ms_in_batch": round(1e3 * many, 2),
        "times_faster": round(one / many, 2),
    }


def write_outputs(folder: Path) -> None:
    """Write all of ShapesPIE's ground truths into one folder."""
    dataset = ShapesPIE(LARGEST, "test", Size.square(64))
    for case_id in dataset.ids:
        path = Path("ground_truth") / str(dataset.source_path(case_id))
        shutil.copy(dataset.root / path, folder / f"{case_id}{path.suffix}")


def memory(outputs: Path, runs: Path, cases: int) -> dict[str, float]:
    """Seconds and peak memory of `zerocon score` over the first cases."""
    command = [
        *(sys.executable, "-m", "zerocon.cli", "score", "--dataset", "shapes", "--outputs"),
        *(str(outputs), "dataset.size=700", f"dataset.limit={cases}", "metrics=full"),
        f"runner.root={runs}",
    ]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, f"zerocon score ended with {os.waitstatus_to_exitcode(status)}"
    return {
        "cases": cases,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_MiB": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("speed", "memory"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--processor", action="store_true", help="measure CPU time")
    parser.add_argument("--cases", type=int, nargs="+", default=[50, 200, 700])
    given = parser.parse_args()
    if given.what == "speed":
        torch.set_num_threads(given.threads or torch.get_num_threads())
        clock = time.process_time if given.processor else time.perf_counter
        for name, row in speed(given.batch, given.repeats, clock).items():
            print(json.dumps({"metric": name} | row))
        print(json.dumps({"batch": given.batch, "threads": torch.get_num_threads()}))
        return
    with tempfile.TemporaryDirectory() as place:
        outputs = Path(place) / "outputs"
        outputs.mkdir()
        write_outputs(outputs)
        for cases in given.cases:
            print(json.dumps(memory(outputs, Path(place) / "runs", cases)), flush=True)


if __name__ == "__main__":
    main()
