from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
import time
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from tests.reports.page import Page
from zerocon.core.records import Record
from zerocon.reports.gallery.items import changed_words, data_uri, enlarged, overlay, shown
from zerocon.reports.gallery.page import GalleryItem, gallery_page, write_gallery
from zerocon.reports.gallery.sheet import _clipped, _texts, contact_sheet

COLUMNS = [
    {"name": "psnr", "unit": "dB", "better": "higher", "digits": 2},
    {"name": "lpips", "unit": "×10³", "better": "lower", "digits": 1},
]
HOSTILE = (
    '</script><script>hit()</script><img src="http://127.0.0.1:9/x" onerror=hit()> & \'"$title'
)
METRICS = [
    {"psnr": 20.0, "lpips": 5.0},
    {"psnr": math.inf, "lpips": 1.0},
    {"psnr": math.nan, "lpips": 9.0},
    {"psnr": 30.0, "lpips": 2.0},
]


def picture(color: str = "red", side: int = 64) -> Image.Image:
    return Image.new("RGB", (side, side), color)


def item(index: int, **more: object) -> GalleryItem:
    record = Record(
        case=f"case{index}",
        status="ok",
        edit_type=str(index % 2),
        edit_name=("color", "style")[index % 2],
        source_prompt="a red heart on a meadow",
        target_prompt="a blue heart on a meadow",
        metrics=METRICS[index],
        **more,  # type: ignore[arg-type]
    )
    return GalleryItem(record, picture(), picture("blue"), picture("blue"), picture("white"))


def failed(error: str = "the mask is empty") -> GalleryItem:
    return GalleryItem(Record(case="broken", status="failed", error=error), source=picture())


def items() -> list[GalleryItem]:
    return [*(item(index) for index in range(4)), failed()]


def test_the_page_makes_no_requests() -> None:
    page = gallery_page(items(), COLUMNS, "a run")
    tags = Page(page).tags
    sources = [attrs[name] or "" for _, attrs in tags for name in ("src", "href") if name in attrs]
    assert len(sources) == 17
    assert all(source.startswith("data:image/") for source in sources)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|url\(", page)


@pytest.mark.parametrize("field", ["source_prompt", "instruction", "edit_name", "case", "error"])
def test_text_from_a_dataset_is_escaped(field: str) -> None:
    values = {"case": "a", "status": "failed", "error": "no", field: HOSTILE}
    hostile = GalleryItem(Record(**values), source=picture())  # type: ignore[arg-type]
    tags = Page(gallery_page([hostile], COLUMNS, HOSTILE)).tags
    harmless = GalleryItem(Record(case="a", status="failed", error="no"), source=picture())
    wanted = Page(gallery_page([harmless], COLUMNS, "a")).tags
    assert [tag for tag, _ in tags if tag in {"script", "img"}] == [
        tag for tag, _ in wanted if tag in {"script", "img"}
    ]


def test_changed_words_are_marked() -> None:
    source, target = changed_words("a red  heart on a meadow", "a big blue heart on a meadow")
    blank = (" ", False)
    assert source == [("a", False), blank, ("red", True), blank, ("heart on a meadow", False)]
    assert [text for text, changed in target if changed] == ["big blue"]
    assert changed_words("", "new") == ([], [("new", True)])
    assert "<ins>blue</ins>" in gallery_page([item(0)], COLUMNS, "t")


def test_nan_and_infinity_are_shown() -> None:
    page = gallery_page([item(1), item(2)], COLUMNS, "t")
    assert "<dd>∞</dd>" in page
    assert "<dd>–</dd>" in page
    assert "20.00<small>dB</small>" in gallery_page([item(0)], COLUMNS, "t")


def test_the_mask_shows_the_region_as_it_is() -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    pixels = np.asarray(overlay(picture(), mask))
    assert tuple(pixels[32, 32]) == (255, 0, 0)
    assert tuple(pixels[16, 32]) == (255, 0, 150)
    assert len(set(pixels[4, 4].tolist())) == 1


def test_small_pictures_are_lossless_and_large_ones_reduced() -> None:
    assert data_uri(picture()).startswith("data:image/png")
    assert len(data_uri(Image.effect_noise((1024, 1024), 90).convert("RGB"))) < 100_000
    assert enlarged(picture(), 144).size == (128, 128)
    assert enlarged(picture(side=512), 144).size == (144, 144)


def test_a_broken_picture_is_left_out() -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    record = failed().record
    broken = GalleryItem(record, source=buffer.getvalue(), edited=buffer.getvalue()[:60])
    assert list(shown(broken)) == ["source"]
    assert list(shown(GalleryItem(record, source=b"<html>"))) == []


def test_files_are_written_and_limited(tmp_path: Path) -> None:
    write_gallery(tmp_path, items(), COLUMNS, "a run", png_cases=2, html_cases=3)
    page = (tmp_path / "gallery.html").read_text()
    assert page.count("<article") == 3
    assert "the first 3 of 5 cases" in page
    with Image.open(tmp_path / "gallery.png") as two:
        height = two.height
    write_gallery(tmp_path, items(), COLUMNS, "a run")
    with Image.open(tmp_path / "gallery.png") as five:
        assert five.height > height
        assert (255, 0, 0) in {color for _, color in five.getcolors(1 << 20) or []}
    write_gallery(tmp_path, [], COLUMNS, "an empty run")
    assert {path.name for path in tmp_path.iterdir()} == {"gallery.html", "gallery.png"}


def test_a_text_of_any_length_is_fitted_at_once() -> None:
    words = " ".join(f"word{i % 97}" for i in range(100_000))
    record = Record(
        case=words, status="failed", error=words, source_prompt=words, target_prompt=f"not {words}"
    )
    started = time.process_time()
    contact_sheet([GalleryItem(record)], words)
    assert time.process_time() - started < 2
    source, target = changed_words(f"a cat {words}", f"a dog {words}")
    assert [(text, changed) for text, changed in source if text != " "][:2] == [
        ("a", False),
        ("cat", True),
    ]
    assert target[2] == ("dog", True)


def test_long_prompts_are_wrapped_and_not_cut(tmp_path: Path) -> None:
    words = [f"word{i}" for i in range(40)]
    record = Record(case="a", status="ok", source_prompt="a", target_prompt=" ".join(words))
    lines = _texts(GalleryItem(record), 400)
    assert " ".join("".join(text for text, _ in line) for line in lines[2:]).split() == words
    assert len(lines) > 5
    font = ImageFont.load_default(13)
    assert all(font.getlength("".join(text for text, _ in line).rstrip()) <= 400 for line in lines)
    write_gallery(tmp_path, [item(0), GalleryItem(record, picture())], COLUMNS, "a run")
    with Image.open(tmp_path / "gallery.png") as sheet:
        high = sheet.height
    write_gallery(tmp_path, [item(0), item(1)], COLUMNS, "a run")
    with Image.open(tmp_path / "gallery.png") as sheet:
        assert sheet.height < high


def test_a_card_shows_four_numbers_and_unfolds_the_others(tmp_path: Path) -> None:
    names = ["a", "b", "psnr_bg", "c", "edit_success"]
    columns = [{"name": n, "unit": "", "better": "higher", "digits": 1} for n in names]
    record = Record(case="a", status="ok", metrics=dict.fromkeys(names, 1.0))
    write_gallery(tmp_path, [GalleryItem(record, picture())], columns, "a run")
    page = (tmp_path / "gallery.html").read_text()
    shown, _, folded = page.partition("<details><summary>1 more number</summary>")
    assert re.findall(r'data-name="(\w+)"', shown) == ["edit_success", "psnr_bg", "a", "b"]
    assert re.findall(r'data-name="(\w+)"', folded) == ["c"]


def test_the_mask_is_explained_where_there_is_one() -> None:
    with_mask = gallery_page(items(), COLUMNS, "a run")
    assert "<figcaption>mask: region to edit, outlined</figcaption>" in with_mask
    assert "outlined in pink" in with_mask
    assert "outlined in pink" not in gallery_page([failed()], COLUMNS, "a run")


def test_a_clipped_text_fills_the_width() -> None:
    draw, font = ImageDraw.Draw(Image.new("RGB", (9, 9))), ImageFont.load_default(13)
    for text in ("", "a", "a red heart on a meadow", "wwwwwwwwwwwwww", "iiiiiiiiiiiiiiiiiiiii"):
        for room in (-1, 0, 5, 20, 60, 61, 62, 80, 1000):
            by_hand = text
            while by_hand and draw.textlength(_marked(by_hand, text), font=font) > room:
                by_hand = by_hand[:-1]
            assert _clipped(draw, text, font, room) == (by_hand and _marked(by_hand, text))


def _marked(part: str, text: str) -> str:
    return part if part == text else f"{part}…"


def test_the_gallery_has_no_columns_without_values(tmp_path: Path) -> None:
    truth = {"name": "psnr_truth", "unit": "dB", "better": "higher", "digits": 2}
    write_gallery(tmp_path, items(), [*COLUMNS, truth], "a run")
    page = (tmp_path / "gallery.html").read_text()
    assert "psnr_truth" not in page
    assert "lpips" in page


def test_a_long_run_is_not_in_memory_at_once(tmp_path: Path) -> None:
    """Pictures that are read later are read for one case at a time, and let go."""
    seen: list[weakref.ref[GalleryItem]] = []
    at_once: list[int] = []

    def later(index: int) -> GalleryItem:
        made = item(index % 4)
        seen.append(weakref.ref(made))
        at_once.append(sum(one() is not None for one in seen))
        return made

    many = [GalleryItem(item(i % 4).record, later=partial(later, i)) for i in range(30)]
    write_gallery(tmp_path, many, COLUMNS, "a run", png_cases=0)
    assert len(seen) == 30
    assert max(at_once) <= 2
    page = (tmp_path / "gallery.html").read_text()
    assert page == gallery_page([item(i % 4) for i in range(30)], COLUMNS, "a run")


CLICKS = """<script>
const seen = () => cards.map(c => c.node).filter(n => !n.hidden)
  .sort((a, b) => a.compareDocumentPosition(b) & 4 ? -1 : 1).map(n => n.querySelector("h2").textContent).join();
const put = (control, value) => { control.value = value; control.dispatchEvent(new Event("input")); return seen(); };
const told = [seen(), put(sort, "psnr"), (turn.click(), seen()), (turn.click(), put(sort, "lpips")),
  put(type, "style"), put(type, ""), put(text, "BLUE case3"), put(text, "mask empty"), String(window.hit)];
document.title = told.join(" | ");
</script></body>"""  # noqa: E501 (a program of its own)


@pytest.mark.slow
def test_in_a_browser_it_sorts_and_filters(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "this test needs a browser: install `chromium`"
    page = gallery_page(items(), COLUMNS, "a run").replace("</body>", CLICKS)
    (tmp_path / "page.html").write_text(page)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title
    assert title[1].split(" | ") == [
        "case0,case1,case2,case3,broken",
        "case1,case3,case0,case2,broken",
        "case0,case3,case1,case2,broken",
        "case1,case3,case0,case2,broken",
        "case1,case3",
        "case1,case3,case0,case2,broken",
        "case3",
        "broken",
        "undefined",
    ]


def test_pictures_that_are_not_square_have_cells_of_their_shape() -> None:
    def pictures(width: int, height: int) -> list[GalleryItem]:
        picture = Image.new("RGB", (width, height), "red")
        return [GalleryItem(item(0).record, picture, picture)]

    def red(data: bytes) -> tuple[int, int, int, int]:
        """Height and width of the pictures together, and of the sheet."""
        sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        found = (sheet == (255, 0, 0)).all(2)
        rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
        return len(rows), len(columns), sheet.shape[0], sheet.shape[1]

    square = red(contact_sheet(pictures(512, 512), "a run"))
    wide = red(contact_sheet(pictures(768, 384), "a run"))
    high = red(contact_sheet(pictures(256, 512), "a run"))
    small = red(contact_sheet(pictures(48, 24), "a run"))
    assert (square[:2], wide[:2], high[:2]) == ((144, 288), (72, 288), (144, 144))
    assert square[2] - wide[2] == 72  # no empty space below
    assert square[3] - high[3] == 144  # nor beside
    assert small[:2] == (72, 288)  # by whole factors
