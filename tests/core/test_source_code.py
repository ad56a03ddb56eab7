"""Which source files a module's numbers come from."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import pytest

from zerocon.core.source_code import code_of, digest_of_files, with_imports


def lay_out(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def found(root: Path, module: str, file: str) -> set[str]:
    return {str(f.relative_to(root)) for f in with_imports(module, root / file)}


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.py": "1", "b.py": "2"})
    said = digest_of_files([tmp_path / "a.py", tmp_path / "b.py"])
    assert said == hashlib.sha256(b"a.py\x001\x00b.py\x002\x00").hexdigest()[:16]


def test_imports_are_followed_through_files_and_packages(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        {
            "mine.py": "import os\nimport pack.inner.deep\nfrom beside import thing\n",
            "beside.py": "import mine\nfrom nowhere import x\n",
            "pack/__init__.py": "",
            "pack/inner/__init__.py": "from . import near\nfrom ..upper import y\n",
            "pack/inner/deep.py": "",
            "pack/inner/near.py": "this is no Python",
            "pack/upper.py": "from .inner.deep import z\n",
            "pack/unused.py": "",
            "unused.py": "",
        },
    )
    assert found(tmp_path, "mine", "mine.py") == {
        "mine.py",
        "beside.py",
        "pack/__init__.py",
        "pack/inner/__init__.py",
        "pack/inner/deep.py",
        "pack/inner/near.py",
        "pack/upper.py",
    }
    assert found(tmp_path, "pack.inner.deep", "pack/inner/deep.py") == {"pack/inner/deep.py"}
    inner = found(tmp_path, "pack.inner", "pack/inner/__init__.py")
    assert inner == {f"pack/{name}.py" for name in ("__init__", "inner/__init__", "inner/near",
                                                    "upper", "inner/deep")}  # fmt: skip


def test_of_an_installed_package_only_its_own_files(tmp_path: Path) -> None:
    root = tmp_path / "site-packages"
    lay_out(
        root,
        {
            "mine/__init__.py": "from mine.a import b\nimport other\n",
            "mine/a.py": "",
            "other.py": "",
        },
    )
    assert found(root, "mine", "mine/__init__.py") == {"mine/__init__.py", "mine/a.py"}


def test_code_that_is_used_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that a used function comes from, but not one that is imported as a whole."""
    lay_out(
        tmp_path,
        {
            "code_top.py": "from code_used import used\nimport code_whole, json\n",
            "code_used.py": "from code_deeper import Deeper\ndef used(): pass\n",
            "code_deeper.py": "class Deeper: pass\n",
            "code_whole.py": "",
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"code_{name}" for name in ("top", "used", "deeper", "whole")]
    try:
        importlib.import_module("code_top")
        files = [tmp_path / f"{name}.py" for name in ("code_deeper", "code_top", "code_used")]
        assert code_of("code_top") == digest_of_files(files)
    finally:
        for name in names:
            sys.modules.pop(name, None)
        code_of.cache_clear()
