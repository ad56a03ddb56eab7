"""Runs named by older versions are found again after one command."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.runs.toy_crew import ToyCrew
from zerocon.cli import main
from zerocon.config.settings import compose_settings
from zerocon.core.naming import content_of
from zerocon.runs import runner
from zerocon.runs.migrate import name_of


def old_name(config: dict[str, Any]) -> str:
    """As versions before this one named a run."""
    content = {key: value for key, value in content_of(config).items() if key != "name"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{config['name']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def test_old_names_become_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = io.StringIO()
    ToyCrew.edited = []
    monkeypatch.setattr(runner, "start_crew", ToyCrew)
    monkeypatch.setattr(runner, "CONSOLE", Console(file=printed, width=300))
    overrides = [f"runner.root={tmp_path}", "dataset.limit=2", "method=word_swap"]
    settings = compose_settings(overrides)
    made = runner.execute(settings).directory
    old = tmp_path / old_name(settings.config)
    made.rename(old)
    main(["runs", "migrate", str(tmp_path)])
    assert f"{old}  is now {made.name}" in capsys.readouterr().out
    assert runner.execute(settings).directory == made
    assert len(ToyCrew.edited) == 2
    main(["runs", "migrate", str(tmp_path)])
    assert "0 runs renamed" in capsys.readouterr().out
    # What is there already is never overwritten.
    made.rename(old)
    (made / "images").mkdir(parents=True)
    main(["runs", "migrate", str(tmp_path)])
    assert f"stays: {made.name} is there already" in capsys.readouterr().out
    assert (old / "records.jsonl").exists()


def test_runs_of_pictures_made_elsewhere_keep_their_names_apart() -> None:
    config = {"name": "a", "dataset": {}, "metrics": {}, "scored": {"outputs": "1"}}
    assert name_of(config) != name_of(config | {"name": "b"}).replace("b-", "a-")
