"""The command and the Python that the page shows are the edit that it made."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.marks import slow_but_for
from tests.shell import words_of
from zerocon.api import settings_of_edit
from zerocon.cli import main, parsed
from zerocon.core.checks import ConfigError
from zerocon.core.size import Size
from zerocon.demo.asked import MOST_BYTES, Asked, uploaded
from zerocon.demo.editing import Job, StoppedError, Studio
from zerocon.demo.fields import Given
from zerocon.demo.page import Page, Picked
from zerocon.demo.samples import samples
from zerocon.demo.shown import escaped

ROOT = Path(__file__).parents[2]
CIRCLE = ROOT / "docs" / "circle.png"
SOURCE, TARGET = "a big red circle on a gray background", "a big blue circle on a gray background"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    studio = Studio(Given())
    yield Page(studio, {}, samples(Size.square(64)))
    studio.close()


def ask(page: Page, method: str, *overrides: str, source: str = SOURCE) -> Asked:
    return page.studio.asked(
        CIRCLE, str(CIRCLE), source=source, target=TARGET, blend=("circle", "circle"),
        method=method, overrides=["method.steps=2", *overrides],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", slow_but_for(["zerocon"], ["zerocon", "p2p"]))
def test_all_three_make_the_same_picture(
    method: str, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(page, method, "seed=3")
    made = page.studio.begin(Job(asked)).result()
    assert asked.blend == (("circle", "circle") if method == "p2p" else None)  # where it counts
    monkeypatch.chdir(tmp_path)
    main([*words_of(asked.command())[1:], "--out", "edited.png"])
    assert Image.open("edited.png").convert("RGB").tobytes() == made.picture.tobytes()
    found: dict[str, Any] = {}
    exec(asked.python(), found)  # noqa: S102 - the page's own text
    assert found["edited"].tobytes() == made.picture.tobytes()
    assert bool(made.curves) == (method == "zerocon")
    assert {"map source: red", "map edited: blue"} < set(made.maps)
    assert made.similarity is not None
    assert made.similarity.shape == (64, 64)
    assert -1.01 <= made.similarity.min() <= made.similarity.max() <= 1.01


@pytest.mark.parametrize("source", [SOURCE, ""])
def test_the_command_composes_to_the_settings_of_the_edit(page: Page, source: str) -> None:
    asked = ask(page, "zerocon", "loss.cut_weight=0.5", "inversion=direct", source=source)
    options = parsed(words_of(asked.command())[1:])
    again = settings_of_edit(options.source, options.overrides)
    assert again.config == settings_of_edit(asked.source, asked.overrides).config


@pytest.mark.parametrize(
    "hostile", ['it\'s a "circle"', "$HOME `id` \\", "-x", "two\nlines", "{a} ${b} <i>", "a = b"]
)
def test_any_prompt_stays_what_it_is(hostile: str) -> None:
    asked = Asked(CIRCLE, "a 'b'.png", hostile, hostile, None, ("method=zerocon",))
    options = parsed(words_of(asked.command())[1:])
    assert (options.image, options.source, options.target) == (Path("a 'b'.png"), hostile, hostile)
    given: dict[str, Any] = {}
    call = asked.python().replace("import zerocon", "").replace("zerocon.edit", "dict")
    exec(call.replace("dict(\n", "dict(picture="), given)  # noqa: S102 - as above
    assert given["edited"]["target"] == given["edited"]["source"] == hostile
    assert not set(escaped(hostile)) & set("<>{$")


def test_a_stopped_edit_ends_and_the_next_one_runs(page: Page) -> None:
    long = Asked(CIRCLE, "circle.png", TARGET, SOURCE, None, ("method=zerocon", "method.steps=900"))
    job = Job(long)
    done = page.studio.begin(job)
    until = time.monotonic() + 120
    while not job.far().done and time.monotonic() < until:
        time.sleep(0.02)
    assert not done.done()
    job.stopping.set()
    with pytest.raises(StoppedError):
        done.result(timeout=60)
    assert page.studio.begin(Job(ask(page, "word_swap"))).result().picture.size == (64, 64)


def test_what_a_click_yields(page: Page) -> None:
    picked = Picked(CIRCLE, "circle.png")
    given = (picked, SOURCE, TARGET, "circle", "circle", "method.steps=2")
    *before, last = page.edit([("word_swap", []), ("p2p", [])], "session", *given)
    assert all("progress" in outputs[0] for outputs in before)
    html, *codes = last[:5]
    assert html.count("zc-edited") == 2
    assert "ground truth" not in html
    assert "--blend" not in codes[0]["value"]
    assert "--blend circle circle" in codes[2]["value"]
    assert not re.search(r"https?://(?!www.w3.org)", html)
    assert page.stops == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: None}, "choose or upload a picture"),
        ({2: " "}, "target prompt is empty"),
        ({5: "method.stepz=2"}, "did you mean method.steps?"),
        ({5: "backbone=sd15"}, "on the page"),
        ({3: "house"}, "is not in the source prompt"),
    ],
)
def test_what_is_wrong_is_said_on_the_page(page: Page, change: dict[int, Any], said: str) -> None:
    given: list[Any] = [Picked(CIRCLE, "circle.png"), SOURCE, TARGET, "circle", "circle", ""]
    for place, value in change.items():
        given[place] = value
    *_, last = page.edit([("p2p", [])], "session", *given)
    assert "zc-error" in last[0]
    assert said in last[0].replace("&#x27;", "'")


def test_a_sample_comes_with_its_prompts_and_ground_truth(page: Page) -> None:
    picked, html, source, target, old, new = page.sample(0)
    assert picked.file.is_file()
    assert "data:image/png" in html
    assert (old in source, new in target) == (True, True)
    assert len({sample.case.edit_type for sample in page.samples}) == len(page.samples) == 10
    assert all(sample.truth is not None for sample in page.samples)


def test_the_captioner_proposes_a_source_prompt(page: Page) -> None:
    proposed, said = page.caption(Picked(CIRCLE, "circle.png"))
    assert "circle" in proposed
    assert said == ""


def test_uploads_are_bounded(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uploaded(CIRCLE).mode == "RGB"
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(ConfigError, match=r"large\.png has 20 MiB; at most 20"):
        uploaded(large)
    wide = tmp_path / "wide.png"
    Image.new("1", (9000, 9000)).save(wide)
    with pytest.raises(ConfigError, match="9000 × 9000 pixels"):
        uploaded(wide)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    assert "can&#x27;t be read as a picture" in page.upload(str(text))[1]
    assert page.upload(str(CIRCLE))[0].shown == "circle.png"


def test_without_gradio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "zerocon.demo.page")
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert ended.value.code == 2
    assert "pip install 'zerocon[demo]'" in capsys.readouterr().err
