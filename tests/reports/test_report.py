from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.reports.made_up import write_run
from tests.reports.page import Page
from zerocon.core.checks import ConfigError
from zerocon.core.records import Record
from zerocon.ledger.records import save_image
from zerocon.reports.estimates import estimates, gathered
from zerocon.reports.page.album import LEVELS, Shots, album
from zerocon.reports.page.cases import dataset_of
from zerocon.reports.page.report import report_page, write_report
from zerocon.reports.page.variants import independent, variants_of
from zerocon.reports.runs import Run, find_runs

HOSTILE = '</script><script>hit()</script><img src="http://127.0.0.1:9/x"> & \'"$title'


def noise(side: int, seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def record(case: str, directory: Path, picture: Image.Image | None, **metrics: float) -> Record:
    image, sha256 = save_image(directory, case, picture) if picture else (None, None)
    kind = "change color" if int(case) % 2 else "change style"
    return Record(
        case=case, status="ok", edit_type=str(int(case) % 2), edit_name=kind, image=image,
        sha256=sha256, source_prompt="a red heart", target_prompt=f"a blue heart number{case}",
        metrics=metrics, seconds=0.5,
    )  # fmt: skip


def config(xa: float, cut: float, seed: int = 0) -> dict[str, Any]:
    """`xa_twin` always changes together with `xa`."""
    method = {"_target_": "zerocon.methods.zerocon.ZeroCon", "steps": 50}
    return {"seed": seed, "method": method, "loss": {"xa": xa, "xa_twin": -xa, "cut": cut}}


def numbers(case: int, xa: float, cut: float) -> dict[str, float]:
    psnr = math.inf if case == 0 and xa == 0.1 else 20.0 + case + 10 * xa
    return {"psnr_bg": psnr, "lpips_bg": 50.0 + 10 * cut - case, "edit_success": float(case % 2)}


def write_sweep(
    root: Path, cases: int = 4, side: int = 16, values: Sequence[float] = (0.1, 0.2)
) -> Path:
    """Every combination; the last run's last case failed."""
    pictures = [noise(side, case) for case in range(cases)]
    for xa in values:
        for cut in values:
            directory = root / f"xa{xa}-cut{cut}"
            pieces = root.parent / "pieces" / directory.name
            records = [
                record(str(case), pieces, picture, **numbers(case, xa, cut))
                for case, picture in enumerate(pictures)
            ]
            if xa == cut == values[-1]:
                records[-1] = failed(str(cases - 1))
            write_run(directory, records, config(xa, cut), name=directory.name)
            (pieces / "images").rename(directory / "images")
    return root


def failed(case: str, error: str = "the mask is empty") -> Record:
    return Record(case=case, status="failed", error=error, edit_type="1", edit_name="change color")


@pytest.fixture
def sweep(tmp_path: Path) -> list[Run]:
    return find_runs([write_sweep(tmp_path / "sweep")])


def lookups(runs: Sequence[Run]) -> dict[str, Callable[[str], Mapping[str, Image.Image]]]:
    white = Image.new("RGB", (16, 16), "white")
    return {dataset_of(runs[0]): lambda case: {"source": noise(16, int(case)), "mask": white}}


def test_the_page_has_every_part_and_asks_for_nothing(sweep: list[Run]) -> None:
    page = report_page(sweep, lookups=lookups(sweep))
    parsed = Page(page)
    names = [attrs["id"] for attrs in parsed.of("section")]
    wanted = ["asked", "results", "ablation", "types", "frontier", "gallery", "failures", "cost"]
    assert names == [*wanted, "provenance"]
    header = page[page.index('id="table1"') :]
    assert header.index("edit_success") < header.index("lpips_bg") < header.index("psnr_bg")
    assert page.count("region to edit, outlined in pink") == 1
    sources = [attrs["src"] or "" for attrs in parsed.of("img")]
    assert all(source.startswith("data:image/") for source in sources)
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=.http|@import|url\(", page)


def test_each_case_has_its_request_once_and_each_variant(sweep: list[Run]) -> None:
    parsed = Page(report_page(sweep, lookups=lookups(sweep)))
    assert len(parsed.of("article", "card")) == 4
    assert len(parsed.of("figure", "variant")) == 16
    webps = [
        a["alt"] or "" for a in parsed.of("img") if (a["src"] or "").startswith("data:image/w")
    ]
    assert len(webps) == 4 * 2 + 15  # one edit failed
    assert sum(said.startswith("source of case") for said in webps) == 4


def test_small_pictures_are_exact(sweep: list[Run]) -> None:
    page = report_page(sweep, lookups=lookups(sweep))
    address = re.search(r'data:image/webp;base64,([^"]*)" alt="source of case 2"', page)
    assert address
    with Image.open(io.BytesIO(base64.b64decode(address[1]))) as picture:
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(noise(16, 2)))


def test_a_sweep_of_two_settings_has_curves_and_maps(sweep: list[Run]) -> None:
    page = report_page(sweep, lookups={})
    plots = [a["alt"] for a in Page(page).of("img") if "svg" in (a["src"] or "")]
    assert plots == [
        *(
            said
            for name in ("edit_success", "lpips_bg", "psnr_bg")
            for said in (f"{name} over loss.cut", f"{name} over loss.cut and loss.xa, a map")
        ),
        "edit_success by edit type",
        "lpips_bg by edit type",
        "edit_success against lpips_bg",
    ]
    assert 'style="--across:2"' in page


def test_a_plot_says_what_it_shows(sweep: list[Run]) -> None:
    page = report_page(sweep, lookups={}, metrics=["lpips_bg"])
    first, second, by_type = (
        base64.b64decode(data).decode()
        for data in re.findall(r'data:image/svg\+xml;base64,([^"]*)', page)
    )
    assert ">xa=0.1<" in first
    assert ">cut<" in first
    assert ">LPIPS of the background<" in first
    assert ">change color (2)<" in by_type
    cells = re.findall(r">(\d+\.\d)<", second)  # lpips is 50 + 10 cut - case, of cases 0 … 3
    assert cells.count("49.5") == 2
    assert cells.count("50.5") == 1
    assert cells.count("51.0") == 1  # without its last case, which failed


def test_settings_that_change_together_are_one(sweep: list[Run]) -> None:
    assert independent(sweep, ["loss.xa", "loss.xa_twin", "loss.cut"]) == ["loss.xa", "loss.cut"]
    variants = variants_of(sweep)
    assert list(variants.swept) == ["loss.cut", "loss.xa"]
    assert variants.labels[1] == "cut=0.1, xa=0.2"


def test_runs_that_are_no_sweep_have_dots_and_their_names(tmp_path: Path) -> None:
    for name, settings in {
        "one": {"a": 1, "b": 2, "c": 3},
        "two": {"a": 2, "b": 3, "c": 3},
    }.items():
        write_run(tmp_path / name, [record("0", tmp_path, None, lpips_bg=1.0)], settings)
    write_run(
        tmp_path / "six", [record("0", tmp_path, None, lpips_bg=3.0)], {"a": 1, "b": 3, "c": 4}
    )
    runs = find_runs([tmp_path / "one", tmp_path / "two", tmp_path / "six"])
    assert list(variants_of(runs).swept) == []
    page = report_page(runs, lookups={})
    assert 'alt="lpips_bg of each variant"' in page
    assert "a=1, b=2, c=3" in page
    assert 'alt="lpips_bg over a"' in report_page(runs, lookups={}, along=["a"])
    with pytest.raises(ConfigError, match="no run's config has a field 'd'"):
        report_page(runs, lookups={}, along=["d"])


def test_intervals_are_over_cases() -> None:
    values = np.array([[1.0, 2.0, 3.0, np.nan], [5.0, np.inf, np.nan, np.nan], [np.nan] * 4])
    three, one, none = estimates(values)
    assert (three.mean, three.n) == (2.0, 3)
    assert 1.0 <= three.low < 2.0 < three.high <= 3.0
    assert (one.mean, one.n, math.isnan(one.low)) == (5.0, 1, True)
    assert (none.n, math.isnan(none.mean)) == (0, True)
    assert gathered(np.array([[1.0, np.nan], [3.0, 4.0]]), [[0, 1]]).tolist() == [[2.0, 4.0]]


def test_repeating_with_other_seeds_makes_no_more_cases(tmp_path: Path) -> None:
    for seed in (0, 1):
        for xa in (0.1, 0.2):
            records = [record(str(c), tmp_path, None, lpips_bg=c + seed) for c in range(3)]
            write_run(tmp_path / f"{xa}-{seed}", records, config(xa, 0.0, seed))
    runs = find_runs([tmp_path])
    page = report_page(runs, lookups={})
    assert "where a point has several runs, each case is first averaged over them" in page
    assert "=0.1, seed=1" in page


def test_failures_costs_and_provenance(sweep: list[Run]) -> None:
    spent = {
        "seconds": {"inversion": 1.0, "editing": 9.0},
        "unet_forward": {"inversion": 200, "editing": 400},
        "unet_backward": {"inversion": 0, "editing": 100},
        "unet_reference": {"inversion": 0, "editing": 50},
        "peak_bytes": 512 * 2**20,
    }
    line = json.dumps(spent) + "\n"
    (sweep[0].directory / "sessions.jsonl").write_text(line + line + '{"torn')
    page = report_page(sweep, lookups={})
    assert "the mask is empty" in page
    row = re.search(r'<section id="cost">.*?<tbody>\s*<tr>(.*?)</tr>', page, re.DOTALL)
    assert row
    cells = re.findall(r'data-v="([^"]*)"', row[1])  # forward of both sessions / 4 cases
    assert cells == ["20", "2", "18", "1200", "400", "100", "200", "300", "512", "2"]
    assert "0123456789ab" in page
    assert "shapes b0" in page


def test_untrusted_text_is_escaped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        hostile = Record(
            case=HOSTILE, status="failed", error=HOSTILE, edit_name=HOSTILE, source_prompt=HOSTILE
        )
        write_run(tmp_path / name, [hostile], {"name": name, "words": f"{HOSTILE}{name}"})
    parsed = Page(report_page(find_runs([tmp_path]), lookups={}, title=HOSTILE, said=[HOSTILE]))
    assert len(parsed.of("script")) == 1
    assert not [a for a in parsed.of("img") if not (a["src"] or "").startswith("data:")]


def test_one_run_and_a_run_that_has_only_begun(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [record("1", tmp_path, None, lpips_bg=1.0)])
    parsed = Page(report_page(find_runs([one]), lookups={}))
    assert "ablation" not in [attrs["id"] for attrs in parsed.of("section")]
    begun = write_run(tmp_path / "begun", [], case_ids=["1", "2"])
    (begun / "records.jsonl").unlink()
    assert "0 of 2 cases are recorded" in report_page(find_runs([begun]), lookups={})


def test_runs_with_two_evaluations_share_no_table(tmp_path: Path) -> None:
    """Swept settings are found per evaluation: the methods differ between them."""
    for protocol, method in (("masked", "A"), ("published", "B")):
        for size in (1, 2):
            settings = {"size": size, "method": {"_target_": f"x.{method}", "own": method}}
            records = [record("0", tmp_path, None, lpips_bg=1.0)]
            name = f"{method}{size}"
            write_run(tmp_path / "runs" / name, records, settings, protocol=protocol)
    page = report_page(find_runs([tmp_path / "runs"]), lookups={})
    assert "2 separate tables, because the runs differ in protocol" in page
    assert page.count('id="table') == 2
    assert page.count('alt="lpips_bg over size"') == 2


def test_pictures_fill_the_available_size() -> None:
    shots: Shots = {case: {case: partial(noise, 32, case)} for case in range(30)}
    whole = album(shots, 150_000)  # 32 x 32 x 3 bytes each, that nothing can compress
    assert (whole.level, whole.cases, len(whole.pictures)) == (LEVELS[0], 30, 30)
    less = album(shots, 60_000)
    assert less.level != LEVELS[0]
    assert len(less.pictures) == 30
    few = album(shots, 10_000)
    assert 0 < few.cases < 30
    for made, room in ((whole, 150_000), (less, 60_000), (few, 10_000)):
        assert sum(map(len, made.pictures.values())) * 4 / 3 <= room
    assert album(shots, 0).pictures == {}
    assert album({}, 1e6).pictures == {}


@pytest.mark.slow
def test_a_picture_that_is_gone_is_left_out(sweep: list[Run], tmp_path: Path) -> None:
    (sweep[0].directory / "images" / "1.png").unlink()
    (sweep[1].directory / "images" / "1.png").write_bytes(b"no picture")
    page = report_page(sweep, lookups={})
    assert page.count("data:image/webp") == 15 - 2
    size = write_report(tmp_path / "new" / "page.html", sweep)
    assert size == (tmp_path / "new" / "page.html").stat().st_size
    with pytest.raises(ConfigError, match="--megabytes"):
        write_report(tmp_path / "page.html", sweep, megabytes=0.0)


TRAP = """<script>
window.trouble = [];
addEventListener("error", (event) => trouble.push(event.message));
addEventListener("securitypolicyviolation", (event) => trouble.push(event.violatedDirective));
for (const name of ["error", "warn"]) console[name] = (...words) => trouble.push(words.join(" "));
</script><title>"""

CLICKS = """<script>
const seen = () => all(".card").filter(n => !n.hidden).map(n => n.querySelector("h3").textContent).join();
const put = (control, value) => { control.value = value; control.dispatchEvent(new Event("input")); return seen(); };
const tick = (group, at) => all("#controls input[data-group='" + group + "']")[at].click();
const figures = () => all(".card:not([hidden]) figure.variant").filter(f => !f.hidden).length;
const rows = () => all("#table1 tbody tr").map(r => r.cells[0].textContent).join("; ");
const head = (name) => all("#table1 th").find(h => h.textContent.startsWith(name)).click();
const told = [seen(), put(metric, "lpips_bg"), put(order, "best"), put(order, "worst"),
  put(order, "ends"), all(".card:not([hidden]) .place").map(n => n.textContent).join(),
  put(order, "median"), put(order, "listed"), put(type, "change color"), put(type, ""),
  put(state, "failed"), put(state, ""), put(text, "BLUE number2"), put(text, ""),
  String(figures()), (tick(0, 0), String(figures())), list.style.getPropertyValue("--across"),
  (tick(1, 0), list.style.getPropertyValue("--across")), (tick(0, 0), tick(1, 0), String(figures())),
  all(".card")[0].querySelectorAll(".variant.best").length + " best",
  (head("lpips_bg"), rows()), (head("lpips_bg"), rows()), (head("psnr_bg"), rows()),
  (document.querySelector(".variant button").click(), String(get("closer").open)),
  get("closer").querySelectorAll("dd").length + " numbers", "trouble: " + trouble.join()];
document.title = told.join(" | ");
</script></body>"""  # noqa: E501 (a program of its own)


@pytest.mark.slow
def test_in_a_browser_it_sorts_and_filters(sweep: list[Run], tmp_path: Path) -> None:
    page = report_page(sweep, lookups=lookups(sweep)).replace("</body>", CLICKS)
    assert _title(page.replace("<title>", TRAP, 1), tmp_path).split(" | ") == [
        "0,1,2,3",
        "0,1,2,3",
        "3,2,1,0",  # lower is better, and lpips falls from case to case
        "0,1,2,3",
        "3,2,0",
        "best 1: 48.3,median 1: 49.5,worst 1: 51.5",
        "2,1,3,0",
        "0,1,2,3",
        "1,3",
        "0,1,2,3",
        "3",
        "0,1,2,3",
        "2",
        "0,1,2,3",
        "16",
        "8",
        "2",
        "1",
        "16",
        "2 best",
        "cut=0.1, xa=0.1; cut=0.1, xa=0.2; cut=0.2, xa=0.1; cut=0.2, xa=0.2",
        "cut=0.2, xa=0.2; cut=0.2, xa=0.1; cut=0.1, xa=0.1; cut=0.1, xa=0.2",
        # Two means are infinite, and best; equal ones keep their order.
        "cut=0.2, xa=0.1; cut=0.1, xa=0.1; cut=0.1, xa=0.2; cut=0.2, xa=0.2",
        "true",
        "3 numbers",
        "trouble: ",
    ]


@pytest.mark.slow
def test_a_large_sweep_is_under_five_megabytes(tmp_path: Path) -> None:
    """The worst case: 100 cases of 3 × 3 variants with incompressible pictures."""
    runs = find_runs([write_sweep(tmp_path / "sweep", cases=100, side=128, values=(0.1, 0.2, 0.4))])
    assert write_report(tmp_path / "report.html", runs, lookups=lookups(runs)) < 5e6
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/webp") == 100 * 11 - 1
    count = 'get("count").textContent + ", trouble: " + trouble.join()'
    shown = f"<script>document.title = {count};</script></body>"
    title = _title(page.replace("<title>", TRAP, 1).replace("</body>", shown), tmp_path)
    assert title == "12 of 100 cases shown, trouble: "


def _title(page: str, folder: Path) -> str:
    """The page's title after its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "this test needs a browser: install `chromium`"
    (folder / "page.html").write_text(page)
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title
    return title[1]


@pytest.mark.slow
def test_plots_are_also_written_as_files(sweep: list[Run], tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", sweep, plots_folder=tmp_path / "plots")
    files = {file.name for file in (tmp_path / "plots").iterdir()}
    for name in ("edit-success-over-loss.cut", "edit-success-against-lpips-bg"):
        assert {f"{name}.png", f"{name}.svg"} <= files
