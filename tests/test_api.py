"""One picture, from Python and from the command line, with the packaged models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zerocon
from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.shapes.render import render
from zerocon.shapes.scene import Scene, Thing

SOURCE, TARGET = "a big red circle on a gray background", "a big blue circle on a gray background"
FEW = ["method.steps=2"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    circle = Thing("circle", "red", "plain", "big", "solid", "upright", 0.5, 0.5)
    file = tmp_path / "photo.png"
    Image.fromarray(render(Scene((circle,), "gray", "photo", 0.5))).resize((100, 90)).save(file)
    return file


def test_from_python(photo: Path) -> None:
    edited = zerocon.edit(photo, source=SOURCE, target=TARGET, overrides=FEW)
    assert edited.size == (64, 64)
    again = zerocon.edit(Image.open(photo), source=SOURCE, target=TARGET, overrides=FEW)
    array = zerocon.edit(np.array(Image.open(photo)), source=SOURCE, target=TARGET, overrides=FEW)
    assert edited.tobytes() == again.tobytes() == array.tobytes()
    other = zerocon.edit(photo, source=SOURCE, target=TARGET, method="word_swap", overrides=FEW)
    assert other.tobytes() != edited.tobytes()


def test_without_a_source_the_caption_takes_its_place(photo: Path) -> None:
    automatic = zerocon.edit(photo, target=TARGET, method="word_swap", overrides=FEW)
    nothing = ["direction=word_swap", *FEW]
    empty = zerocon.edit(photo, target=TARGET, method="word_swap", overrides=nothing)
    assert automatic.tobytes() != empty.tobytes()


def test_from_the_command_line(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["edit", str(photo), "--source", SOURCE, "--target", TARGET, "method=zerocon", *FEW])
    edit = Image.open(photo.with_name("photo-edited.png"))
    both = Image.open(photo.with_name("photo-edited-side-by-side.png"))
    assert edit.size == (64, 64)
    assert both.size == (130, 64)
    assert np.array_equal(np.array(both)[:, -64:], np.array(edit))
    assert "photo-edited.png" in capsys.readouterr().out


def test_what_is_missing_is_said(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="target prompt is empty"):
        zerocon.edit(photo, source=SOURCE, target=" ", overrides=FEW)
    photo.write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="2"):
        main(["edit", str(photo), "--source", SOURCE, "--target", TARGET, *FEW])
    assert "photo.png" in capsys.readouterr().err


def test_costs_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "--count", "word_swap", "zerocon", "--overrides", "method.steps=2"])
    printed = capsys.readouterr().out
    # Inversion, forward, backward, sum and share of the published pipeline's 400 rows.
    assert printed.split("word_swap")[1].split()[:5] == ["2", "4", "0", "4", "0.01"]
    assert printed.split("zerocon")[1].split()[:5] == ["2", "8", "2", "10", "0.03"]
