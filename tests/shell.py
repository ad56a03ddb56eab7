"""A command's words as a shell reads them."""

from __future__ import annotations

import subprocess


def words_of(command: str) -> list[str]:
    asked = ["bash", "-c", f"printf '%s\\0' {command}"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]
