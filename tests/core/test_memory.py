"""Names of what was computed before, and where it lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerocon.core.memory import NO_MEMORY, Entry, cache_folder, key_of


def test_a_key_is_a_digest_of_kind_and_content() -> None:
    key = key_of("direction", {"b": [1, "é"], "a": None})
    assert key == key_of("direction", {"a": None, "b": [1, "é"]})
    assert key not in (key_of("inversion", {"b": [1, "é"], "a": None}), key_of("direction", {}))
    assert len(key) == 40
    # SHA-256 of '["x", {"a": "\\u00e9", "b": 2}]': what is kept on disk keeps its name.
    assert key_of("x", {"b": 2, "a": "é"}) == "d687806d3d324ec91dac23554d2cb0766687f747"


def test_the_folder_is_the_users_unless_another_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROCON_CACHE", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else")
    for unset in (lambda: monkeypatch.setenv("ZEROCON_CACHE", ""),
                  lambda: monkeypatch.delenv("ZEROCON_CACHE")):  # fmt: skip
        unset()
        assert cache_folder() == Path.home() / ".cache" / "zerocon"


def test_no_memory_computes_every_time() -> None:
    made: list[Entry] = []

    def compute() -> Entry:
        made.append(Entry(values={"n": len(made)}))
        return made[-1]

    assert [NO_MEMORY.kept("x", 1, compute).values["n"] for _ in range(2)] == [0, 1]
