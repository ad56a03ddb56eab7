"""A notebook as a page: its cells, and the outputs that are committed with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def page(file: Path) -> tuple[str, dict[str, bytes]]:
    """The notebook in Markdown, and its pictures by file name."""
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    for number, cell in enumerate(json.loads(file.read_text("utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell["outputs"]):
            name = f"{file.stem}-{number}-{place}.png"
            parts += _shown(output, name, pictures)
    first, *rest = parts
    note = f"*This page is the notebook [{file.name}](../files/notebooks/{file.name}).*"
    return "\n\n".join([first, note, *rest]) + "\n", pictures


def _shown(output: Mapping[str, Any], name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """An output as Markdown; its picture is added to `pictures`."""
    data: Mapping[str, Any] = output.get("data", {})
    if "image/png" in data:
        pictures[name] = base64.b64decode("".join(data["image/png"]))
        yield f"![output of the cell above]({name})"
    elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
        yield f"```text\n{text}\n```"


def title(file: Path) -> str:
    return str(json.loads(file.read_text("utf-8"))["cells"][0]["source"][0]).lstrip("# ").strip()
