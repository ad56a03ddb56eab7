"""README's commands are accepted as they are printed, and its first edit is made."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from zerocon.cli import main, parsed
from zerocon.commands.run import asked_of, preflight

ROOT = Path(__file__).parents[1]


def printed(program: str) -> list[str]:
    """The commands of README's blocks that begin with `program`, without their comments."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.partition("  #")[0] for line in lines if line.startswith(f"{program} ")]


RUNS, COMMANDS = printed("python run.py"), printed("zerocon")
assert len(RUNS) >= 6
assert len(COMMANDS) >= 15
(EDIT,) = (command for command in COMMANDS if command.startswith("zerocon edit"))


@pytest.mark.parametrize("line", RUNS)
def test_its_runs_compose(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no run is finished
    for download in printed("hf download"):
        (tmp_path / download.rpartition("--local-dir ")[2].strip()).mkdir()
    assert preflight(asked_of(shlex.split(line)[2:])) is None


@pytest.mark.parametrize("line", COMMANDS)
def test_its_commands_are_there(line: str) -> None:
    for command in line.split(", "):  # "zerocon runs, zerocon cache"
        assert parsed(shlex.split(command)[1:]).handler


@pytest.mark.slow
def test_its_first_edit_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    main(shlex.split(EDIT)[1:])
    made = Image.open("blue-side-by-side.png").convert("RGB")
    shown = Image.open(ROOT / "docs" / "blue-side-by-side.png").convert("RGB")
    far = max(abs(a - b) for a, b in zip(made.tobytes(), shown.tobytes(), strict=True))
    assert far <= 1  # processors round differently
