"""The commands of docs/pie_bench.md: they compose as printed and, if asked for, run at full size.

At full size with random weights they take minutes, 8 GB of disk and of memory, so they run only
with `ZEROCON_FULL_SIZE_PAGE=1 pytest -n 0 -s --timeout 0 tests/test_pie_bench_page.py`.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests import random_weights
from tests.printed import ROOT, commands
from zerocon.cli import parsed
from zerocon.commands.run import asked_of, preflight
from zerocon.config.experiments import read_experiment

PAGE = "docs/pie_bench.md"
ASKED = os.environ.get("ZEROCON_FULL_SIZE_PAGE", "")
SHORT = ["dataset.limit=1", "method.steps=2", "backbone.device=cpu"]
BLOCKED = """
import socket, pathlib
def refuse(*place, **_):
    with pathlib.Path({note!r}).open("a") as note:
        note.write(repr(place) + "\\n")
    raise OSError("there is no network in this test")
socket.getaddrinfo = refuse
socket.create_connection = refuse
"""


RUNS, COMMANDS = commands(PAGE, "python run.py"), commands(PAGE, "zerocon")
assert len(RUNS) >= 2
assert len(COMMANDS) >= 4


@pytest.mark.parametrize("line", RUNS)
def test_its_runs_compose(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("blip-image-captioning-base", "pie_bench"):
        (tmp_path / "downloads" / name).mkdir(parents=True)
    assert preflight(asked_of(shlex.split(line)[2:])) is None


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_are_there(line: str) -> None:
    assert parsed(shlex.split(line)[1:]).handler


@pytest.mark.parametrize("line", [line for line in COMMANDS if " experiment " in line])
def test_its_experiments_compose(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "downloads" / "blip-image-captioning-base").mkdir(parents=True)
    options = parsed(shlex.split(line)[1:])
    runs = read_experiment(options.name).settings(options.overrides, options.only)
    assert [run.name for run in runs] == options.only


def test_the_sizes_are_the_published_ones() -> None:
    """Counted without memory: 860 million parameters in the U-Net, 428 in CLIP."""
    with torch.device("meta"):
        made = [random_weights.unet(), random_weights.vae(), random_weights.text_encoder(),
                random_weights.clip()]  # fmt: skip
    counted = [round(sum(p.numel() for p in model.parameters()) / 1e6) for model in made]
    assert counted == [860, 84, 123, 428]


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full_size")
    random_weights.write_everything(folder / "downloads")
    random_weights.write_pie_bench(folder / "downloads" / "pie_bench")
    return folder


@pytest.mark.skipif(not ASKED, reason="only if ZEROCON_FULL_SIZE_PAGE is set")
@pytest.mark.parametrize("line", RUNS)
def test_its_runs_work_at_full_size_without_a_network(line: str, downloaded: Path) -> None:
    note = downloaded / "network.txt"
    (downloaded / "sitecustomize.py").write_text(BLOCKED.format(note=str(note)))
    python = os.pathsep.join([str(downloaded), str(ROOT)])
    words = shlex.split(line)[2:]
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *words, *SHORT],
        cwd=downloaded, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": python},
    )  # fmt: skip
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\n{line}\n{took:.0f} s, peak memory so far {peak:.1f} GB\n{done.stdout[-3000:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert not note.exists(), note.read_text()
