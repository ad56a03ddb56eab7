"""README's commands are accepted as they are printed, and its first edit is made.

tests/test_newcomer.py runs them, with those of the tutorials.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests.printed import ROOT, accepted, commands, write_files
from website.api import subcommands
from zerocon.cli import main, parser
from zerocon.core.registry import PLUGINS

PAGES = ["README.md", *(f"docs/tutorials/{p.name}" for p in (ROOT / "docs/tutorials").glob("*.md"))]
RUNS = [(page, line) for page in PAGES for line in commands(page, "python run.py")]
COMMANDS = [line for page in PAGES for line in commands(page, "zerocon")]
assert len(RUNS) >= 6
assert len(COMMANDS) >= 15
(EDIT,) = (c for c in commands("README.md", "zerocon edit"))


@pytest.mark.parametrize(("page", "line"), RUNS)
def test_its_runs_compose(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is finished
    write_files(page, tmp_path)
    for name in ("pie_bench", "blip-image-captioning-base"):
        (tmp_path / "downloads" / name).mkdir(parents=True)
    monkeypatch.setenv(PLUGINS, "")
    accepted(line)


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_are_there(line: str) -> None:
    for command in line.split(", "):  # "zerocon runs, zerocon cache"
        accepted(command)


def test_it_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for command in subcommands(parser()):
        assert re.search(rf"\b{command}\b", text), command


@pytest.mark.slow
def test_its_first_edit_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    main(shlex.split(EDIT)[1:])
    made = Image.open("blue-side-by-side.png").convert("RGB")
    shown = Image.open(ROOT / "docs" / "blue-side-by-side.png").convert("RGB")
    far = max(abs(a - b) for a, b in zip(made.tobytes(), shown.tobytes(), strict=True))
    assert far <= 1  # processors round differently
