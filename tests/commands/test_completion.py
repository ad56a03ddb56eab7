"""Completion in the shell, by its function and in a real bash."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
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


def with_the_command(folder: Path) -> dict[str, str]:
    """An environment in which `zerocon` is this one."""
    command = folder / "zerocon"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zerocon "$@"\n', "utf-8")
    command.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(folder), "TERM": "dumb"}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("breaks", "completed"), [(" =:", "null_text"), (" :", "inversion=null_text")]
)
def test_in_bash(breaks: str, completed: str, tmp_path: Path) -> None:
    typed = "zerocon run inversion=null"
    script = f"""{BASH}
COMP_WORDBREAKS='{breaks}' COMP_LINE='{typed}' COMP_POINT={len(typed)}
_zerocon
echo "${{COMPREPLY[@]}}"
complete -p zerocon
"""
    done = subprocess.run(
        ["bash", "-c", script], env=with_the_command(tmp_path),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [completed, "complete -o default -F _zerocon zerocon"]


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [("run inversion=null", "inversion=null_text"), ("run method.gui", "method.guidance=")],
)
def test_in_fish(typed: str, completed: str, tmp_path: Path) -> None:
    script = f"zerocon completion fish | source; complete -C 'zerocon {typed}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env=with_the_command(tmp_path),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [completed]


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("run inversion=null", "inversion=null_text"),
        ("run method.gui", "method.guidance=and"),  # a value follows
    ],
)
def test_in_zsh(typed: str, completed: str, tmp_path: Path) -> None:
    """As typed: zsh completes in its line editor only."""
    child, terminal = pty.fork()
    if not child:
        os.execvpe("zsh", ["zsh", "-f"], with_the_command(tmp_path))  # noqa: S606 - of the child
    setup = 'autoload -Uz compinit; compinit -u; eval "$(zerocon completion zsh)"; echo re""ady'
    try:
        os.write(terminal, f"{setup}\r".encode())
        until(terminal, "ready")
        os.write(terminal, f"zerocon {typed}\tand".encode())
        until(terminal, completed)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def until(terminal: int, said: str) -> None:
    """Read what the terminal shows until it says so."""
    seen, end = "", time.monotonic() + 30
    while said not in seen:
        assert time.monotonic() < end, repr(seen)
        if select.select([terminal], [], [], 0.5)[0]:
            shown = os.read(terminal, 65536).decode(errors="replace")
            seen += shown.replace("\a", "")  # it rings where a value must follow
