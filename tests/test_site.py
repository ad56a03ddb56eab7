"""The site: it builds without a broken link, needs no other host, and its reference is complete."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zerocon
from website import api, settings
from website.notebooks import page
from website.ranges import ranges, unread
from website.tree import as_python_markdown, linked, site_path, with_site_links
from zerocon.cli import parser
from zerocon.config.compose import GROUPS
from zerocon.config.places import CONF
from zerocon.config.settings import RunnerSettings
from zerocon.core.registry import ROOMS, find, names
from zerocon.methods.flowedit import FlowEdit
from zerocon.methods.p2p import P2P

ROOT = Path(__file__).parents[1]
CLASSES = [find(kind, name) for kind in ROOMS for name in names(kind) if "zerocon." in name]
WORDS = r"in_range\(f'method.reweight.{word}', factor\)|one_of\(\"a metric's column\".*"


def test_ranges_are_those_of_the_class() -> None:
    assert ranges(P2P)["steps"] == "1 to 1000"
    assert ranges(P2P)["blend_start"] == "0 to 1"  # checked in a loop over names
    assert ranges(P2P)["edit"] == "`replace`, `refine`, `reweight`"
    assert ranges(FlowEdit)["sampled"] == "0 to `strength`"  # another setting
    assert ranges(RunnerSettings)["workers"] == "at least 1"


@pytest.mark.parametrize("choice", CLASSES, ids=lambda choice: str(choice.__name__))
def test_every_check_of_a_class_is_read(choice: Callable[..., Any]) -> None:
    """All but those of a mapping's words, which are no settings of their own."""
    assert [said for said in unread(choice) if not re.fullmatch(WORDS, said)] == []
    parameters = inspect.signature(choice).parameters
    unknown = {name for name in ranges(choice) if name not in parameters}
    assert not unknown or "chosen" in parameters or "settings" in parameters


def test_links_of_the_repository_become_links_of_the_site() -> None:
    text = "[a](../../experiments/all_methods.md#b) [c](https://d) ![e](f.png) [g](#h)"
    moved = with_site_links(text, "docs/tutorials/first_edit.md")
    assert moved == text.replace("../../", "../")
    assert with_site_links("[a](docs/zerocon.md#b)", "README.md") == "[a](zerocon.md#b)"
    assert with_site_links("[a](../README.md)", "docs/zerocon.md") == "[a](index.md)"
    assert with_site_links("[a](experiments/)", "README.md") == "[a](experiments/index.md)"
    assert with_site_links("[a](../conf/)", "docs/x.md") == "[a](reference/index.md)"
    fenced = "```\n[a](docs/zerocon.md)\n```\n"
    assert with_site_links(fenced, "README.md") == fenced
    assert list(linked("[a](../experiments/all_methods.md#b) `[x](y.md)`", "docs/x.md")) == [
        "experiments/all_methods.md"
    ]
    assert site_path("notebooks/01_first_edit.ipynb") == "notebooks/01_first_edit.md"
    assert site_path("CITATION.cff") == "files/CITATION.cff"


def test_lists_and_tables_get_the_blank_lines_that_they_need() -> None:
    assert as_python_markdown("text:\n- a\n  b\n- c") == "text:\n\n-   a\n    b\n-   c"
    assert as_python_markdown("text\n| a |\n| - |") == "text\n\n| a |\n| - |"
    assert as_python_markdown("1. a\n   - b") == "1.  a\n    -   b"
    assert as_python_markdown("```\nx\n- a\n```") == "```\nx\n- a\n```"


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": ["1 + 1"],
            "outputs": [
                {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
                {"output_type": "display_data", "data": {"image/png": "aGk="}},
            ],
        },
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    text, pictures = page(tmp_path / "n.ipynb")
    assert "```python\n1 + 1\n```" in text
    assert "```text\n2\n```" in text
    assert pictures == {"n-1-1.png": b"hi"}
    assert "(n-1-1.png)" in text


@pytest.mark.slow
def test_every_choice_and_setting_is_in_the_reference() -> None:
    pages = settings.pages()
    for file in CONF.glob("**/*.yaml"):
        group = file.parent.relative_to(CONF).as_posix()
        if file.name == "config.yaml" or group.endswith("shared"):
            continue
        text = pages[f"reference/{group.rpartition('/')[2]}.md"]
        head = f"`{group}={file.stem}`" if group in GROUPS else f"`{file.stem}`"
        assert f"\n## {head}\n" in text, file
    for group in GROUPS:
        rows = re.findall(
            r"^\| `([\w.]+)` \| (.*?) \| (.*?) \| (.*) \|$",
            pages[f"reference/{group}.md"],
            re.MULTILINE,
        )
        found = {cells[0] for cells in rows}
        for file in settings.choices(group):
            assert {one.name for one in settings.settings_of(group, file.stem)} <= found
        assert [cells for cells in rows if not all(map(str.strip, cells))] == []


def test_every_public_name_and_command_is_in_the_reference() -> None:
    pages = api.pages()
    for name in zerocon.__all__:
        assert f"\n## `zerocon.{name}`\n" in pages["reference/python.md"]
        assert f"def {name}(" in pages["reference/python.md"]
    assert api.signature("load", zerocon.load) == (
        "def load(name: str = 'shapes', *overrides: str) -> Backbone"
    )
    assert "\n    *,\n    target: str,\n    source: str = '',\n" in pages["reference/python.md"]
    for command in api.subcommands(parser()):
        assert f"\n## `{command}`\n" in pages["reference/commands.md"]


@pytest.mark.slow
def test_the_site_builds_and_needs_no_other_host(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    html = sorted(tmp_path.rglob("*.html"))
    assert len(html) > 60
    for file in html:
        text = file.read_text("utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\"> ]*)", text)
        loaded += re.findall(r"<link[^>]* rel=\"?stylesheet\"?[^>]*href=\"?(https?:[^\"> ]*)", text)
        loaded += re.findall(r"<link[^>]*href=\"?(https?:[^\"> ]*)[^>]*rel=\"?stylesheet", text)
        assert loaded == [], file
    for name in ("method.html", "python.html", "commands.html"):
        assert (tmp_path / "reference" / name).is_file()
