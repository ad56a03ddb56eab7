from __future__ import annotations

import subprocess
import sys

import pytest

from zerocon.cli import main

IMPORTS = "import sys, zerocon.cli; zerocon.cli.parser(); sys.exit('torch' in sys.modules)"


def test_help_and_reports_do_not_wait_for_torch() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def test_a_mistake_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["table", "/nowhere/at/all"])
    said = capsys.readouterr().err
    assert said.startswith("zerocon: ")
    assert "/nowhere/at/all" in said
    assert "Traceback" not in said
