"""A newcomer's walk: the commands of README.md and the tutorials, in the order printed.

They run as printed in a copy of the tree, with an empty cache. Few are not run, each for a reason.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.printed import ROOT, Shown, accepted, shown

PAGES = [
    "README.md",
    *(
        f"docs/tutorials/{name}.md"
        for name in ("first_edit", "ablation", "comparison", "own_method")
    ),
]
SHORTER = {
    "make run": "python run.py dataset.limit=2 method.steps=10",  # as printed, it takes minutes
}
NOT_RUN = {
    r"make test": "it is this suite",
    r"source \.venv/": "the tests have an environment already",
}
ONLY_COMPOSED = {
    r"zerocon download": "needs a network",
    r".*\bbackbone=(sd|flux)": "needs weights that are downloaded",
    r"zerocon runs, zerocon cache": "names two commands",
    r".*\b(RUNS?|DIR|FOLDER|NAME|SOURCE)\b": "a word in capitals stands for the reader's own",
    r"zerocon shapes (check|train)": "takes minutes, or days",
    r"zerocon demo": "it serves until it is stopped; tests/demo opens it",
    r"zerocon track sync": "sends to a server",
}
STEPS = [step for page in PAGES for step in shown(page)]


def reason_for(line: str, reasons: dict[str, str]) -> str:
    return next((why for pattern, why in reasons.items() if re.match(pattern, line)), "")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, and commands `python` and `zerocon` as an environment has them."""
    folder = tmp_path_factory.mktemp("newcomer")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "bin").mkdir()
    for name, words in {"python": '"$@"', "zerocon": '-m zerocon "$@"'}.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}\n')
        script.chmod(0o755)
    return folder


def test_what_is_not_run_is_little() -> None:
    lines = [step.text for step in STEPS if step.kind == "command"]
    run = [x for x in lines if not reason_for(x, NOT_RUN) and not reason_for(x, ONLY_COMPOSED)]
    assert len(run) >= 20
    for reasons in (NOT_RUN, ONLY_COMPOSED):
        for pattern in reasons:
            assert any(re.match(pattern, line) for line in lines), f"nothing is like {pattern}"


COMPOSED = sorted(
    {s.text for s in STEPS if s.kind == "command" and reason_for(s.text, ONLY_COMPOSED)}
)


@pytest.mark.parametrize("line", COMPOSED)
def test_what_needs_more_composes(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pie_bench", "blip-image-captioning-base"):
        (tmp_path / "downloads" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for command in line.split(", "):  # "zerocon runs, zerocon cache"
        accepted(command)


@pytest.mark.slow
@pytest.mark.timeout(3600)  # the machine may be shared; the time that it takes is printed
def test_the_walk(copy: Path) -> None:
    began = time.perf_counter()
    for step in STEPS:
        if step.kind == "file":
            (copy / step.name).parent.mkdir(parents=True, exist_ok=True)
            (copy / step.name).write_text(step.text)
        elif step.kind == "python":
            walked(copy, step, ["python", "-c", step.text])
        elif not reason_for(step.text, NOT_RUN) and not reason_for(step.text, ONLY_COMPOSED):
            walked(copy, step, ["sh", "-c", SHORTER.get(step.text, step.text)])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"the walk took {time.perf_counter() - began:.0f} s, "
        f"{used.ru_utime + used.ru_stime:.0f} s of processors"
    )
    for page in PAGES[1:]:
        for picture in pictures_of(page):
            check_picture(copy, picture)


def walked(copy: Path, step: Shown, command: list[str]) -> None:
    """Run a step; it must succeed, or fail with the output that is printed with it."""
    environment = {
        **os.environ,
        "PATH": f"{copy / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
        "ZEROCON_CACHE": str(copy / "cache"),
        "COLUMNS": "120",
    }
    began = time.perf_counter()
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(f"{time.perf_counter() - began:6.1f} s  {step.text.splitlines()[0]}", flush=True)
    said = done.stdout + done.stderr
    assert not step.output or promised(step.output, said), f"{step.text}: {said[-3000:]}"
    assert step.output or done.returncode == 0, f"{step.page}: {step.text}: {said[-3000:]}"


def promised(output: str, said: str) -> bool:
    """Whether the printed output was printed, up to each `…`."""
    words = " ".join(said.split())
    return all(" ".join(part.split()) in words for part in output.split("…"))


def pictures_of(page: str) -> list[Path]:
    text = (ROOT / page).read_text("utf-8")
    return [(ROOT / page).parent / name for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)]


def check_picture(copy: Path, committed: Path) -> None:
    """A tutorial's picture is what its commands made; plots and galleries are of its size."""
    made = [p for p in copy.rglob(committed.name) if copy / "docs" not in p.parents]
    assert made, f"no command made {committed.name}"
    ours, theirs = (Image.open(p).convert("RGB") for p in (committed, made[0]))
    assert abs(ours.width - theirs.width) <= 0.1 * ours.width, committed.name
    if committed.name.endswith("side-by-side.png"):
        far = np.abs(np.asarray(ours, float) - np.asarray(theirs, float))
        assert far.mean() < 1, committed.name  # processors round differently
