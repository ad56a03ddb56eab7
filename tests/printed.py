"""What a page prints: its commands, its files and its Python, in the order printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zerocon.cli import parsed
from zerocon.commands.run import _own_options, asked_of, preflight
from zerocon.core.registry import use_plugins

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?:^`(?P<file>[\w/]+\.\w+)`:\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Shown:
    """One command, file or piece of Python of a page."""

    kind: str  # command, file or python
    text: str
    page: str
    name: str = ""  # of a file
    output: str = ""  # of a command that is printed with its output


def shown(page: str) -> Iterator[Shown]:
    """All of a page. Blocks without a language are commands, or `$ command` and its output."""
    for block in _BLOCK.finditer((ROOT / page).read_text("utf-8")):
        text = block["text"]
        if block["file"]:
            yield Shown("file", text, page, name=block["file"])
        elif block["language"] == "python":
            yield Shown("python", text, page)
        elif not block["language"]:
            yield from _commands(text, page)


def _commands(text: str, page: str) -> Iterator[Shown]:
    lines = text.replace("\\\n", " ").splitlines()
    if not any(line.startswith("$ ") for line in lines):
        yield from (Shown("command", _without_comment(line), page) for line in lines if line)
        return
    for part in re.split(r"^\$ ", "\n".join(lines), flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield Shown("command", _without_comment(command), page, output=output)


def _without_comment(line: str) -> str:
    return line.partition("  #")[0].strip()


def commands(page: str, program: str = "") -> list[str]:
    """The page's commands without their output, of one program or of all."""
    return [
        one.text
        for one in shown(page)
        if one.kind == "command" and not one.output and one.text.startswith(f"{program} ".lstrip())
    ]


def accepted(line: str) -> None:
    """Compose a printed `python run.py …`, or parse a `zerocon …`; an error if it is wrong."""
    words = shlex.split(line)
    if words[:2] == ["python", "run.py"] or words[:2] == ["zerocon", "run"]:
        ours, rest = _own_options(words[2:])
        use_plugins(ours.plugin)
        assert preflight(asked_of(rest)) is None
    else:
        assert words[0] == "zerocon"
        assert parsed(words[1:]).handler


def write_files(page: str, folder: Path) -> None:
    """Write the files that the page shows."""
    for one in shown(page):
        if one.kind == "file":
            (folder / one.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / one.name).write_text(one.text)
