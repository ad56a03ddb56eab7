"""docs/extending.md, run from an empty folder as a user would."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
QUICK = ["dataset.limit=1", "method.steps=2", "metrics.clip=null", "metrics.lpips=null",
         "metrics.structure=null", "metrics.truth=null", "runner.root=runs"]  # fmt: skip
EXAMPLES = {
    "my_method": ["dataset.limit=1"],
    "my_loss": QUICK,
    "my_metric": QUICK,
    "my_dataset": QUICK[1:],
}


def files_of_the_page() -> dict[str, str]:
    """Each code block that follows the name of a file."""
    block = r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```$"
    return dict(re.findall(block, PAGE, re.MULTILINE | re.DOTALL))


def command_with(plugin: str) -> list[str]:
    (line,) = re.findall(rf"^(zerocon run --plugin {plugin} .*)$", PAGE, re.MULTILINE)
    return shlex.split(line)[1:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    for name, content in files_of_the_page().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def called(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "zerocon", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_page_has_four_examples() -> None:
    assert {f"{name}.py" for name in EXAMPLES} <= set(files_of_the_page())


@pytest.mark.slow
@pytest.mark.parametrize("plugin", EXAMPLES)
def test_an_example_runs(folder: Path, plugin: str) -> None:
    small = [*EXAMPLES[plugin], f"name={plugin}", "runner.root=runs"]
    if plugin == "my_dataset":
        small = ["method.steps=2", *QUICK[2:], f"name={plugin}"]
    done = called(folder, *command_with(plugin), *small)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (folder / "runs").glob(f"{plugin}-*")
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert f"{plugin}." in str(stored)


@pytest.mark.slow
def test_a_run_of_a_user_class_needs_the_plugin(folder: Path) -> None:
    made = called(folder, *command_with("my_method"), "dataset.limit=1", "runner.root=again")
    assert made.returncode == 0, made.stderr
    (run,) = (folder / "again").iterdir()
    without = called(folder, "reproduce", str(run))
    assert without.returncode == 2
    assert "--plugin MODULE" in without.stderr
    assert "my_method.Keep is not a known method" in without.stderr
    within = called(folder, "reproduce", str(run), "--plugin", "my_method")
    assert within.returncode == 0, within.stdout + within.stderr
    assert "1 equal to the bit" in within.stdout


@pytest.mark.slow
def test_its_settings_are_checked_like_any(folder: Path) -> None:
    wrong = called(folder, *command_with("my_method"), "method.share=2")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "method.share is 2; it must be between 0 and 1" in wrong.stderr
    typed = called(folder, *command_with("my_method"), "method.share=half")
    assert "method.share is 'half'; it must be a number" in typed.stderr


@pytest.mark.slow
def test_the_help_shows_user_choices(folder: Path) -> None:
    shown = called(folder, "run", "--help", "--config-dir", "my_conf")
    assert re.search(r"\bmethod=[^=]*\bkeep\b", shown.stdout)  # the list is wrapped
