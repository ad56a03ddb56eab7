from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from zerocon.core.naming import digest
from zerocon.ledger.provenance import git_state, installed, provenance


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True)


def test_the_digest_is_the_contents() -> None:
    config = {"method": {"steps": 50, "name": "pnp"}, "seed": 0}
    assert digest(config) == digest({"seed": 0, "method": {"name": "pnp", "steps": 50}})
    assert digest(config) != digest(config | {"seed": 1})
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})
    # A run's directory is named by it: a change here makes every finished run unfindable.
    assert digest(config) == "3c2144dea8"
    with pytest.raises(TypeError):
        digest({"path": Path()})


def test_a_revision_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert git_state(tmp_path) == {"revision": None, "dirty": None}
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "first")
    state = git_state(tmp_path)
    assert len(state["revision"]) == 40
    assert state["dirty"] is False
    (tmp_path / "a.py").write_text("changed")
    assert git_state(tmp_path) == state | {"dirty": True}


def test_a_package_inside_a_foreign_repository_has_no_revision(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "first", "--allow-empty")
    (tmp_path / ".gitignore").write_text("site-packages")
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages")["revision"] is None


def test_it_is_all_json_and_tells_the_versions() -> None:
    told = json.loads(json.dumps(provenance("cpu", "float32", 3)))
    assert (told["seed"], told["device"], told["dtype"]) == (3, "cpu", "float32")
    assert told["packages"]["torch"]
    assert told["device_name"]
    assert installed("no-such-package-here") is None
