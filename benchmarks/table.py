"""Time and memory of `zerocon table` over very many records.

    python benchmarks/table.py [--runs 2000] [--cases 500] [--folder DIR] [--rows method.guidance]

Writes made-up runs in the real format (the numbers are random, every 50th case failed), then
times the whole command, including imports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from zerocon.core.records import Record

COLUMNS = [
    {"name": name, "unit": unit, "better": better, "digits": 2}
    for name, unit, better in (
        ("psnr_bg", "dB", "higher"),
        ("ssim_bg", "", "higher"),
        ("mse_bg", "1e-4", "lower"),
        ("psnr_whole", "dB", ""),
        ("ssim_whole", "", ""),
        ("bg_share", "", ""),
        ("clip_whole", "", "higher"),
        ("clip_edited", "", "higher"),
        ("lpips_bg", "1e-3", "lower"),
        ("lpips_whole", "1e-3", ""),
        ("structure", "1e-3", "lower"),
        ("psnr_truth", "dB", "higher"),
        ("ssim_truth", "", "higher"),
        ("lpips_truth", "1e-3", "lower"),
        ("edit_success", "", "higher"),
    )
]
EDITS = ("random", "change object", "add object", "delete object", "change content")


def write_runs(root: Path, runs: int, cases: int, seed: int = 0) -> None:
    """Runs of a sweep over guidance and seed, each over the same cases."""
    ends = [_ends_of_line(case) for case in range(cases)]
    for index in range(runs):
        directory = root / f"run-{index:05d}"
        directory.mkdir(parents=True)
        _write_settings(directory, index, cases)
        values = np.random.default_rng((seed, index)).normal(20, 3, (cases, len(COLUMNS)))
        lines = (_line(*end, row) for end, row in zip(ends, values, strict=True))
        (directory / "records.jsonl").write_text("".join(lines))


def _write_settings(directory: Path, index: int, cases: int) -> None:
    config = {
        "name": "run",
        "seed": index // 10,
        "backbone": {"_target_": "zerocon.backbones.shapes.Shapes", "path": None},
        "method": {"_target_": "zerocon.methods.ddim.DDIM", "guidance": 1.0 + index % 10},
        "runner": {"root": "outputs", "batch_size": 10},
    }
    origin = {
        "name": "run",
        "case_ids": [f"{case:012d}" for case in range(cases)],
        "columns": COLUMNS,
        "protocol": "masked",
        "backbone": {"name": "shapes", "fingerprint": "0123456789abcdef"},
        "dataset": {"name": "made_up", "fingerprint": "0123456789abcdef"},
        "judges": {"ClipScore": "0123456789abcdef"},
        "uses_mask": False,
        "provenance": {"git": {"revision": None, "dirty": None}},
    }
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (directory / "run.json").write_text(json.dumps(origin, indent=2) + "\n")


def _ends_of_line(case: int) -> tuple[str, str, bool]:
    """The text of a record before and after its metrics, and whether the case failed."""
    failed = case % 50 == 49
    record = Record(
        case=f"{case:012d}",
        status="failed" if failed else "ok",
        error="RuntimeError: made up" if failed else None,
        edit_type=str(case % 5),
        edit_name=EDITS[case % 5],
        source_prompt="a small red striped circle left of a large blue star on a meadow",
        target_prompt="a small green striped circle left of a large blue star on a meadow",
        instruction="make the circle green",
        image=None if failed else f"images/{case:012d}.png",
        sha256=None if failed else f"{case:064x}",
        seconds=1.25,
    )
    before, after = record.to_line().decode().split('"metrics": {}')
    return before, after, failed


def _line(before: str, after: str, failed: bool, values: np.ndarray) -> str:
    if failed:
        return f'{before}"metrics": {{}}{after}'
    pairs = zip(COLUMNS, values.tolist(), strict=True)
    metrics = ", ".join(f'"{column["name"]}": {value!r}' for column, value in pairs)
    return f'{before}"metrics": {{{metrics}}}{after}'


def measure(root: Path, more: list[str]) -> dict[str, float]:
    """Seconds and peak memory of one `zerocon table` over all runs under `root`."""
    command = [sys.executable, "-m", "zerocon.cli", "table", f"{root}/**", *more]
    started = time.perf_counter()
    with (root / "table.txt").open("w") as file:
        subprocess.run(command, check=True, stdout=file)
    seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_MiB": round(used.ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="folder to keep the runs in for repeated use")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        if not any(root.glob("run-*")):
            write_runs(root, options.runs, options.cases)
        size = sum(file.stat().st_size for file in root.rglob("records.jsonl"))
        told = {"records": options.runs * options.cases, "MB": size // 10**6}
        cores = len(os.sched_getaffinity(0))
        print(json.dumps(told | {"cores": cores} | measure(root, more)))


if __name__ == "__main__":
    main()
