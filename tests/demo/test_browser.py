"""The page in a real browser: a click, and the edited picture is there."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import TEXT, Browser
from tests.shell import words_of
from zerocon.cli import main

ROOT = Path(__file__).parents[2]
SOON = 240  # seconds, on a machine that does much else
FEW = 2  # steps


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    told = {
        "ZEROCON_CACHE": str(folder), "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with (folder / "said").open("w+") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "zerocon", "demo", "--port", str(port)],
            env=os.environ | told, stdout=said, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
        try:
            until = time.monotonic() + SOON
            while "http://" not in (folder / "said").read_text():
                assert server.poll() is None, (folder / "said").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture
def browser(address: str, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        opened.open(address)
        opened.wait("!!document.querySelector('#method-steps-1 input')", SOON)
        yield opened


STEPS, TARGET = "#method-steps-1 input", "#target textarea"
EDITED = "document.querySelectorAll('#results .zc-edited img').length"
FIGURES = (
    "[...document.querySelectorAll('#results > * figcaption, #results figcaption')]"
    ".map(one => one.innerText)"
)
COMMAND = "document.querySelector('#shell-1 .cm-content')?.innerText"
PIXELS = "document.querySelector('#results .zc-edited img').src"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_click_makes_the_edit_and_the_command_shown_makes_it_again(
    browser: Browser, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.fill(STEPS, str(FEW))
    began = time.monotonic()
    browser.click("#edit")
    browser.wait(f"{EDITED} === 1", SOON)
    assert time.monotonic() - began < SOON
    shown = browser.run(FIGURES)
    assert shown[:3] == ["source", "ground truth", "zerocon"]
    assert {"circle", "square", "similarity"} < set(shown)
    assert any(name.startswith("cut: ") for name in shown)
    command = browser.wait(COMMAND)
    assert f"method.steps={FEW}" in command
    main([*words_of(command)[1:], "--out", str(tmp_path / "again.png")])
    again = Image.open(tmp_path / "again.png").convert("RGB")
    assert data_of(browser.run(PIXELS), tmp_path).tobytes() == again.tobytes()
    strange = [url for url in browser.requested if not url.startswith((address, "data:", "blob:"))]
    assert strange == []  # nothing came from another host


def data_of(uri: str, folder: Path) -> Image.Image:
    (folder / "shown.png").write_bytes(base64.b64decode(uri.partition(",")[2]))
    return Image.open(folder / "shown.png").convert("RGB")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_edit_can_be_stopped_and_an_upload_edited_on_a_phone(browser: Browser) -> None:
    browser.sized(400, 800)
    browser.fill(STEPS, "900")
    browser.click("#edit")
    browser.wait("!!document.querySelector('#results progress[value]')", SOON)
    top = "document.querySelector('#results').getBoundingClientRect().top"
    browser.wait(f"{top} < 200", SOON)  # scrolled to, as they are below
    browser.click("#stop")
    browser.wait("document.querySelector('#results').innerText.includes('stopped')", SOON)
    browser.choose_file("#upload input, input[type=file]", ROOT / "docs" / "circle.png")
    browser.wait("document.querySelector('#chosen').innerText.includes('circle.png')", SOON)
    assert browser.run(f"document.querySelector({TARGET!r}).value") == ""  # another picture's
    browser.click("#caption")
    browser.wait("document.querySelector('#source textarea').value.includes('circle')", SOON)
    browser.fill(TARGET, "a big blue circle on a gray background")
    browser.fill(STEPS, str(FEW))
    browser.click("#edit")
    browser.wait(f"{EDITED} === 1", SOON)
    assert "ground truth" not in browser.run(FIGURES)
    assert browser.wait(COMMAND).startswith("zerocon edit circle.png")
    assert browser.run("document.documentElement.scrollWidth") <= 400, browser.run(TEXT)
