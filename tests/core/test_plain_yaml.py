"""Untrusted YAML gives an error, never a crash."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from zerocon.core import plain_yaml
from zerocon.core.plain_yaml import loaded


def test_plain_settings_are_read() -> None:
    assert loaded("a: {b: [1, 2.5, x]}\nc:\n  - d: null\n") == {
        "a": {"b": [1, 2.5, "x"]},
        "c": [{"d": None}],
    }


@pytest.mark.parametrize("text", ["'[' * 200_000", "'{a: ' * 200_000", "'- ' * 200_000",
                                  "'? ' * 200_000"])  # fmt: skip
def test_deep_nesting_is_an_error(text: str) -> None:
    """In a separate process, which a crash would kill."""
    code = (
        "import yaml\nfrom zerocon.core.plain_yaml import loaded\n"
        f"try:\n    loaded({text})\nexcept yaml.YAMLError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr[-500:]


def test_objects_and_endless_texts_are_refused() -> None:
    with pytest.raises(yaml.YAMLError):
        loaded("!!python/object/apply:os.system [touch]")
    with pytest.raises(yaml.YAMLError, match="more than settings ever have"):
        loaded("a: " + "x" * 5_000_000)


@pytest.mark.parametrize(
    ("level", "of"),
    [("[", "brackets"), ("{? ", "braces"), ("- ", "items"), ("? ", "keys"), ("[{? ", "both")],
)
def test_only_what_is_surely_shallow_goes_to_libyaml(
    monkeypatch: pytest.MonkeyPatch, level: str, of: str
) -> None:
    """Up to 999 levels; a line's first signs are counted one by one."""
    monkeypatch.setattr(plain_yaml, "_QUICK", "libyaml")
    monkeypatch.setattr(yaml, "load", lambda _text, loader: loader)
    deep = {"brackets": 1, "braces": 1, "items": 2, "keys": 2, "both": 2}[of]
    most = 999 // deep
    for more in ("", "x: 1\n"):
        assert loaded(more + level * most) == "libyaml"
        assert loaded(more + level * (most + 1)) is yaml.SafeLoader


def test_a_text_may_have_four_million_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "load", lambda text, _loader: len(text))
    assert loaded(" " * 4_000_000) == 4_000_000
    with pytest.raises(yaml.YAMLError):
        loaded(" " * 4_000_001)
