"""mkdocs' hook: the pages from outside docs/, the reference made from the code, and links."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website import api, notebooks, settings
from website.tree import (
    AT_THE_TOP,
    FOLDERS,
    ROOT,
    as_python_markdown,
    linked,
    site_path,
    with_site_links,
)

REFERENCE = "reference"
EXPERIMENTS = """\
# Experiments

Questions, and the runs that answer them. `zerocon experiment` lists them, `zerocon experiment NAME`
runs one.

"""
NOTEBOOKS = """\
# Notebooks

They are in the folder `notebooks`, with their outputs; these pages show them.

"""


def on_config(config: MkDocsConfig) -> None:
    """Put the pages of a folder into the navigation where it names the folder."""
    config.nav = _unfolded(config.nav, _folders())


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all pages that are not in docs/, and the files that pages link to."""
    texts = {f"docs/{f.src_uri}": f.content_string for f in files if f.src_uri.endswith(".md")}
    made: dict[str, str | bytes] = {}
    for path, content in _generated():
        made[site_path(path)] = content
        if isinstance(content, str):
            texts[path] = content
    for source, content in made.items():
        files.append(File.generated(config, source, content=content))
    for path in sorted({path for page, text in texts.items() for path in linked(text, page)}):
        file, place = ROOT / path, site_path(path)
        as_it_is = place.startswith("files/") or file.suffix == ".png"
        if as_it_is and file.is_file() and files.get_file_from_path(place) is None:
            files.append(File.generated(config, place, content=file.read_bytes()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of the repository become links of the site."""
    return as_python_markdown(with_site_links(markdown, _in_repository(page.file.src_uri)))


def _generated() -> Iterator[tuple[str, str | bytes]]:
    """(path in the repository, content) of the pages beside docs/; some exist on the site only."""
    for name in ("README.md", *AT_THE_TOP):
        yield name, (ROOT / name).read_text("utf-8")
    for name, text in {**settings.pages(), **api.pages()}.items():
        yield f"docs/{name}", text
    reports = sorted((ROOT / "experiments").glob("*.md"))
    yield (
        "experiments/index.md",
        EXPERIMENTS
        + "".join(
            f"- [{report.stem}]({report.name}): {_question(report.read_text('utf-8'))}\n"
            for report in reports
        ),
    )
    for report in reports:
        yield f"experiments/{report.name}", report.read_text("utf-8")
    books = sorted((ROOT / "notebooks").glob("*.ipynb"))
    yield (
        "notebooks/index.md",
        NOTEBOOKS + "".join(f"- [{notebooks.title(book)}]({book.name})\n" for book in books),
    )
    for book in books:
        text, pictures = notebooks.page(book)
        yield f"notebooks/{book.name}", text
        yield from ((f"notebooks/{name}", picture) for name, picture in pictures.items())
        yield f"files/notebooks/{book.name}", book.read_bytes()


def _question(report: str) -> str:
    """The paragraph below a report's title."""
    return report.split("\n\n")[1].replace("\n", " ")


def _in_repository(source: str) -> str:
    if source == "index.md":
        return "README.md"
    if source.startswith("notebooks/") and source != "notebooks/index.md":
        return source.removesuffix(".md") + ".ipynb"
    outside = source in AT_THE_TOP or source.partition("/")[0] in FOLDERS
    return source if outside else f"docs/{source}"


def _folders() -> dict[str, list[Any]]:
    """{folder: its pages after its index, as entries of the navigation}"""
    groups = [*settings.TITLES, "experiment", "speed", "usual", "launcher"]
    reports = sorted((ROOT / "experiments").glob("*.md"))
    books = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return {
        f"{REFERENCE}/": [{f"{g}": f"{REFERENCE}/{g}.md"} for g in groups],
        "experiments/": [{r.stem: f"experiments/{r.name}"} for r in reports],
        "notebooks/": [{notebooks.title(b): f"notebooks/{b.stem}.md"} for b in books],
    }


def _unfolded(entry: Any, folders: dict[str, list[Any]]) -> Any:
    if isinstance(entry, list):
        return [_unfolded(one, folders) for one in entry]
    if isinstance(entry, dict):
        return {title: _unfolded(inner, folders) for title, inner in entry.items()}
    return [f"{entry}index.md", *folders[entry]] if entry in folders else entry
