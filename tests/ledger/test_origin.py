from __future__ import annotations

import json
import subprocess
from pathlib import Path

from zerocon.ledger.origin import environment, git_state, installed


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True)


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
    told = json.loads(json.dumps(environment("cpu", "float32", 3)))
    assert (told["seed"], told["device"], told["dtype"]) == (3, "cpu", "float32")
    assert told["packages"]["torch"]
    assert told["device_name"]
    assert installed("no-such-package-here") is None
