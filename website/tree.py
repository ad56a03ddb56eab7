"""Where each file of the repository is on the site, and its links there.

Pages are written for a code forge: links are paths of the repository. On the site, README.md is the
home page, docs/ is the top level, and a linked file that is no page is copied to `files/`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {
    "README.md": "index.md",
    "docs/reference.md": "reference/index.md",
    "conf": "reference/index.md",
}
AT_THE_TOP = ("CONTRIBUTING.md", "CHANGELOG.md")
FOLDERS = ("experiments", "notebooks")  # of pages beside docs/

_FENCE = re.compile(r"^ *(`{3,}|~{3,})")
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(?=\))")
_ITEM = re.compile(r"^( *)([-*+]|\d+[.)]) ")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)


def site_path(path: str) -> str:
    """The site's source path of a file or folder of the repository."""
    if path in PLACES:
        return PLACES[path]
    if path in FOLDERS:
        return f"{path}/index.md"
    top, _, rest = path.partition("/")
    if top == "docs":
        return rest
    if top in FOLDERS and path.endswith((".md", ".ipynb", ".png")):
        return re.sub(r"\.ipynb$", ".md", path)
    return path if path in AT_THE_TOP else f"files/{path}"


def resolved(link: str, page: str) -> tuple[str, str] | None:
    """The repository's path that a link on a page means, and its anchor; None if it leads away."""
    if re.match(r"[a-z]+:", link) or link.startswith("#"):
        return None
    target, _, anchor = link.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target)), anchor


def linked(text: str, page: str) -> Iterator[str]:
    """The repository's paths that a page links to."""
    for prose in _prose(text):
        for match in _LINK.finditer(_without_code(prose)):
            if found := resolved(match[2], page):
                yield found[0]


def with_site_links(text: str, page: str) -> str:
    """The page with its links as on the site; `page` is its path in the repository."""
    here = posixpath.dirname(site_path(page))

    def moved(match: re.Match[str]) -> str:
        found = resolved(match[2], page)
        if found is None:
            return match[0]
        path, anchor = found
        target = posixpath.relpath(site_path(path), here or ".")
        return match[1] + target + (f"#{anchor}" if anchor else "")

    return _outside_code(text, lambda prose: _LINK.sub(moved, prose))


def as_python_markdown(text: str) -> str:
    """The text with blank lines and indents where Python-Markdown needs them and forges do not.

    A list or a table may follow a paragraph at once, and an item's further lines are indented by
    four spaces a level.
    """
    lines: list[str] = []
    items: list[int] = []  # the column of the text of each open item
    fence = ""
    for line in text.split("\n"):
        depth = len(line) - len(line.lstrip())
        if not fence and line.strip():
            items = [column for column in items if column <= depth]
        out = " " * (4 * len(items)) + line[items[-1] :] if items and line.strip() else line
        if mark := _FENCE.match(line):
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        elif not fence and (item := _ITEM.match(line)):
            if lines and lines[-1].strip() and not items and not _in_list(lines[-1]):
                lines.append("")
            items = [*items, item.end()]
            marker = item[2] + " "
            out = out.replace(marker, f"{marker:<4}", 1)
        elif not fence and out.lstrip().startswith("|") and lines and _ends_prose(lines[-1]):
            lines.append("")
        lines.append(out)
    return "\n".join(lines)


def _in_list(line: str) -> bool:
    return bool(_ITEM.match(line)) or line.startswith("    ")


def _ends_prose(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(("|", "#"))


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """Runs of lines, and whether they are a fenced block."""
    fence, held = "", list[str]()
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and not fence:
            yield False, "".join(held)
            fence, held = mark[1], [line]
        elif mark and mark[1].startswith(fence):
            yield True, "".join([*held, line])
            fence, held = "", []
        else:
            held.append(line)
    yield bool(fence), "".join(held)


def _prose(text: str) -> Iterator[str]:
    yield from (part for fenced, part in _parts(text) if not fenced)


def _without_code(prose: str) -> str:
    return _CODE.sub(lambda m: "`" + "x" * (len(m[0]) - 2) + "`", prose)


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    return "".join(part if fenced else change(part) for fenced, part in _parts(text))
