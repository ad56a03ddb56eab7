"""`run.py --help`: every setting has its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from zerocon.commands.explain import TARGET, Meanings, help_text
from zerocon.config.compose import GROUPS
from zerocon.config.places import CONF

FILES = [file for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]
SHORT = {"xa_weight", "cut_weight", "zecon_weight", "n_patches"}  # stand for settings of terms


def settings_in(
    node: Mapping[str, Any], prefix: str, target: str = ""
) -> Iterator[tuple[str, str]]:
    target = str(node.get(TARGET, target))
    for key, value in node.items():
        if isinstance(value, dict):
            yield from settings_in(value, f"{prefix}{key}.", target)
        elif key not in (TARGET, "defaults", *SHORT):
            yield f"{prefix}{key}", target


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}={file.stem}")
def test_every_setting_says_what_it_means(file: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(file.read_text()) or {}
    meanings = Meanings([CONF])
    named = settings_in(content, f"{file.parent.name}.")
    assert [name for name, target in named if not meanings.of(name, target)] == []


def test_the_help_shows_value_and_meaning() -> None:
    shown = help_text(["method=sdedit", "method.steps=7"], [], "run.py")
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("method.steps ")]
    assert line.split() == ["method.steps", "7", "sampling", "steps"]
    assert "\nmethod: SDEdit\n" in shown


def test_meanings_of_users_own_choices_come_first(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    mine = "_target_: mine.Method\nsteps: 3  # steps of mine\nown: 1\n"
    (tmp_path / "method" / "mine.yaml").write_text(mine)
    meanings = Meanings([tmp_path, CONF])
    assert meanings.of("method.steps", "mine.Method") == "steps of mine"
    assert meanings.of("method.own", "mine.Method") == ""
