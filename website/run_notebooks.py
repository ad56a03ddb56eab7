"""Run the notebooks and store their outputs in them: `python -m website.run_notebooks [FILE …]`.

Needs `pip install 'zerocon[notebooks]'`. Pictures are stored with at most 256 colours; what only
tells when and where a cell was run is left out.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

from website.tree import ROOT


def run(file: Path) -> None:
    # Imported by name: only who makes the outputs needs them.
    nbformat: Any = import_module("nbformat")
    nbclient: Any = import_module("nbclient")
    book = nbformat.read(file, as_version=4)
    began = time.perf_counter()
    nbclient.NotebookClient(book, timeout=1800, record_timing=False).execute(cwd=str(ROOT))
    print(f"{file.name}: {time.perf_counter() - began:.0f} s, ", end="")
    for cell in book.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [_kept(one) for one in cell.outputs if not _is_progress(one)]
    book.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(book, file)
    print(f"{file.stat().st_size / 1000:.0f} KB")


def _is_progress(output: Any) -> bool:
    """A warning, or a run's progress, which rich shows as HTML."""
    return output.get("name") == "stderr" or "text/html" in output.get("data", {})


def _kept(output: Any) -> Any:
    output.pop("metadata", None)
    if output.output_type in ("display_data", "execute_result"):
        output.metadata = {}
        if "image/png" in output.data:
            output.data = {"image/png": _smaller(output.data["image/png"])}
    return output


def _smaller(encoded: str) -> str:
    """The picture in as few bytes as it takes, with at most 256 colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        run(Path(name))
