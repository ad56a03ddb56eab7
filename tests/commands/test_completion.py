"""Completion in the shell, by its function and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zerocon.cli import parser
from zerocon.commands.completion import BASH, _subcommands, completions


@pytest.mark.parametrize(
    ("line", "among", "not_among"),
    [
        ("zerocon ", {"run", "edit", "table", "completion"}, {"method="}),
        ("zerocon com", {"compare", "combinations", "completion"}, {"run"}),
        ("zerocon run meth", {"method=", "method."}, {"metrics="}),
        ("zerocon run method=p", {"method=pnp", "method=p2p"}, {"method=zerocon"}),
        ("zerocon run seed=1 method.st", {"method.steps=", "method.strength="}, {"method.mask="}),
        (
            "zerocon run +experiment=zero",
            {"+experiment=zerocon_paper"},
            {"+experiment=pnp_published"},
        ),
        ("zerocon run --mul", {"--multirun"}, {"--plugin"}),
        ("zerocon edit --s", {"--source"}, {"--target"}),
        ("zerocon edit a.png inversion=nu", {"inversion=null_text"}, {"inversion=none"}),
        ("zerocon experiment pnp_", {"pnp_ablation", "pnp_tuning"}, {"trade_off"}),
        ("zerocon shapes ch", {"check"}, {"train"}),
        ("zerocon table me", set[str](), {"method="}),
        ("zerocon edit 'an open quote me", {"method="}, set[str]()),
    ],
)
def test_completions(line: str, among: set[str], not_among: set[str]) -> None:
    found = set(completions(line, _subcommands(parser())))
    assert among <= found
    assert not found & not_among


def test_it_needs_no_heavy_imports() -> None:
    code = (
        "import sys; from zerocon.cli import main; "
        "main(['completion', 'bash', '--line', 'zerocon run method.st']); "
        "assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("breaks", "completed"), [(" =:", "null_text"), (" :", "inversion=null_text")]
)
def test_in_bash(breaks: str, completed: str, tmp_path: Path) -> None:
    command = tmp_path / "zerocon"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zerocon "$@"\n', "utf-8")
    command.chmod(0o755)
    typed = "zerocon run inversion=null"
    script = f"""{BASH}
COMP_WORDBREAKS='{breaks}' COMP_LINE='{typed}' COMP_POINT={len(typed)}
_zerocon
echo "${{COMPREPLY[@]}}"
complete -p zerocon
"""
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [completed, "complete -o default -F _zerocon zerocon"]
