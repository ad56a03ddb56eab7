"""Names of classes, and modules of the user's own that offer more."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zerocon.core.registry import (
    PLUGINS,
    find,
    load_plugins,
    public_name,
    sources_of,
    targets,
    use_plugins,
)

SOURCE = """
import zerocon

@zerocon.register("method")
class Mine:
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the current folder, which is not yet where Python looks."""
    name = f"registry_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setenv(PLUGINS, "")
    load_plugins.cache_clear()
    yield name
    sys.modules.pop(name, None)
    load_plugins.cache_clear()


def test_a_class_of_ours_may_be_named_by_its_file() -> None:
    assert public_name("method", "zerocon.methods.sdedit.SDEdit") == "zerocon.methods.SDEdit"
    assert public_name("method", "zerocon.methods.SDEdit") == "zerocon.methods.SDEdit"
    assert public_name("method", "zerocon.methods.sdedit.Nothing").endswith("sdedit.Nothing")
    assert public_name("method", "somebodys.SDEdit") == "somebodys.SDEdit"


def test_a_plugin_is_found_in_the_current_folder(module: str) -> None:
    use_plugins([module])
    use_plugins([module])
    assert sys.path.count(str(Path.cwd())) == 1
    assert os.environ[PLUGINS] == module
    assert find("method", f"{module}.Mine").__name__ == "Mine"


def test_nothing_is_named_where_there_are_no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PLUGINS, raising=False)
    use_plugins([])
    assert PLUGINS not in os.environ


def test_a_process_that_was_started_for_us_knows_the_plugins(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGINS, f"{module},")
    (file,) = sources_of({"method": {"_target_": f"{module}.Mine"}})
    assert file == Path.cwd() / f"{module}.py"


def test_targets_are_found_anywhere() -> None:
    config = {"_target_": "a", "b": [{"_target_": "c"}, 1, [{"d": {"_target_": "e"}}]], "f": None}
    assert list(targets(config)) == ["a", "c", "e"]
