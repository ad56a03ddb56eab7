"""The package's structure: no mutual imports, and a complete tree in the docs.

The allowed imports are contracts in pyproject.toml, which `lint-imports` checks.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import zerocon

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "zerocon"
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def imported(file: Path) -> Iterator[str]:
    """The full names of all imports in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_between_rooms(package: Path) -> set[tuple[str, str]]:
    """(importer, imported) for the packages and modules directly in the package."""
    found: set[tuple[str, str]] = set()
    for file in package.rglob("*.py"):
        importer = file.relative_to(package).parts[0].removesuffix(".py")
        for name in imported(file):
            top, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            if top == package.name and room != importer:
                found.add((importer, room))
    return found


def both_ways(imports: set[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((a, b) for a, b in imports if a < b and (b, a) in imports)


def rooms_of_tree(page: str) -> set[str]:
    """The packages that the tree in docs/architecture.md shows directly in `zerocon/`."""
    tree = page.partition("## The tree")[2].split("```")[1].partition("\nzerocon/")[2]
    lines = [line for line in tree.splitlines()[1:] if line.startswith("  ")]
    names = [line[2:].split("  ")[0] for line in lines if not line.startswith("   ")]
    return {room for first_column in names for room in re.findall(r"(\w+)/", first_column)}


def test_no_two_packages_import_each_other() -> None:
    assert both_ways(imports_between_rooms(PACKAGE)) == []


def test_such_a_pair_is_found(tmp_path: Path) -> None:
    for name, text in {
        "p/a/__init__.py": "",
        "p/a/one.py": "def f():\n    from p.b import two\n",
        "p/b/__init__.py": "",
        "p/b/two.py": "import p.a.one\nimport p.c\n",
        "p/c.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert both_ways(imports_between_rooms(tmp_path / "p")) == [("a", "b")]


def test_the_tree_in_the_docs_lists_every_package() -> None:
    assert rooms_of_tree((ROOT / "docs" / "architecture.md").read_text()) == ROOMS


def test_every_package_has_a_docstring() -> None:
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())), room


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_has_one_source() -> None:
    settings = project()
    assert "version" in settings["project"]["dynamic"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "zerocon.__version__"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == zerocon.__version__
    released = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == zerocon.__version__


def test_ci_runs_every_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    assert any(step.get("run") == ".ci/run" for step in job["steps"])
    lowest = project()["project"]["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"][0] == lowest
