"""Rows are named by what distinguishes the runs, and tables fit the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from made_up import failed, method, ok, write_run

from zerocon.cli import main
from zerocon.config.experiments import names
from zerocon.core.text import counted
from zerocon.reports.key_metrics import axis_label, in_words, key_columns
from zerocon.reports.layout import grids, width_of
from zerocon.reports.names import labels_of
from zerocon.reports.runs import find_runs
from zerocon.reports.summary import Group, Statistic, Summary

METRICS = ("psnr_bg", "ssim_bg", "mse_bg", "clip_whole", "clip_edited", "lpips_bg", "structure",
           "psnr_truth", "edit_success")  # fmt: skip
COLUMNS = [
    {"name": name, "unit": "", "better": "higher", "digits": 2, "pixels": "", "takes": ""}
    for name in METRICS
]


def labels(folder: Path, **configs: Mapping[str, object]) -> list[str]:
    for name, config in configs.items():
        write_run(folder / f"run-{name}", [ok("a", psnr_bg=1.0)], config, name="run")
    return labels_of(find_runs([folder]))


def test_runs_of_one_name_are_named_by_the_settings_that_differ(tmp_path: Path) -> None:
    assert labels(tmp_path, a=method("Ddim", steps=4), b=method("Ddim", steps=8)) == [
        "steps=4",
        "steps=8",
    ]


def test_a_setting_is_named_only_where_it_tells_runs_apart(tmp_path: Path) -> None:
    found = labels(
        tmp_path,
        a=method("PnP", attention=0.4, rate=1),
        b=method("PnP", attention=0.8, rate=2),  # rate follows attention
        c=method("Ddim", guidance=3, rate=3),
    )
    assert found == ["PnP attention=0.4", "PnP attention=0.8", "Ddim"]


def test_stored_names_are_shown_as_they_are_set(tmp_path: Path) -> None:
    losses = [{"loss": {"cut": {"weight": weight}}} for weight in (0, 1)]
    assert labels(tmp_path, a=losses[0], b=losses[1]) == ["cut_weight=0", "cut_weight=1"]


def test_names_that_a_person_gave_are_kept(tmp_path: Path) -> None:
    for name, steps in (("ours", 4), ("ours", 8), ("theirs", 4)):
        folder = tmp_path / f"{name}-{steps}"
        write_run(folder, [ok("a", psnr_bg=1.0)], method("Ddim", steps=steps), name=name)
    assert labels_of(find_runs([tmp_path])) == ["ours steps=4", "ours steps=8", "theirs"]


def test_runs_without_a_difference_keep_their_directory(tmp_path: Path) -> None:
    alike = method("Ddim", steps=4)
    assert labels(tmp_path, a=alike, b=alike) == ["run-a", "run-b"]
    (tmp_path / "run-a" / "config.yaml").write_text("[")
    assert labels_of(find_runs([tmp_path])) == ["run-a", "run-b"]
    assert labels_of(find_runs([tmp_path / "run-a"])) == ["run-a"]


def summary(number: int) -> Summary:
    stats = {name: Statistic(12.345 + number, 1.25, 10) for name in METRICS}
    return Summary(Group("all", 10, 0, 1.0, stats), {})


def table(count: int, width: int, *, brief: bool = True, name: str = "method=") -> list[str]:
    runs = {(f"{name}{i}",): summary(i) for i in range(count)}
    made = grids(runs, COLUMNS, width=width, brief=brief)
    assert all(width_of(grid) <= width for grid in made)
    return [" ".join(name.split()) for grid in made for name in grid.header]


def test_eighty_columns_show_the_five_key_metrics_in_one_table() -> None:
    assert table(20, 80) == [
        "", "edit_success ↑", "clip_whole ↑", "lpips_bg ↑", "psnr_bg ↑", "structure ↑"
    ]  # fmt: skip
    assert len(table(20, 80, name="a long name of a run with many words ")) == 6


def test_a_wide_terminal_and_all_show_every_metric() -> None:
    assert len(table(20, 250)) == 1 + len(("cases", "failed")) + len(METRICS)
    every = table(20, 80, brief=False)
    assert {name.removesuffix(" ↑") for name in every} >= set(METRICS)


def test_few_runs_have_room_for_every_metric() -> None:
    assert table(2, 80) == ["metric", "method=0", "method=1"]


def test_narrow_rows_say_the_error_below_the_mean_and_each_rows_counts() -> None:
    groups = {(name,): summary(0) for name in ("a", "b", "c", "d", "e", "f")}
    fewer = Summary(Group("all", 7, 2, 1.0, summary(0).overall.metrics), {})
    (grid,) = grids(groups | {("f",): fewer}, COLUMNS, width=80, brief=True)
    assert grid.rows[0][0].under == ("10 cases",)
    assert grid.rows[-1][0].under == ("7 cases, 2", "failed")
    assert grid.rows[0][1].joined == "12.35 ± 1.25"
    assert grid.rows[0][1].under == ("± 1.25",)
    (grid,) = grids(groups, COLUMNS, width=80, brief=True)
    assert "each row: 10 cases" in grid.notes
    assert "the key metrics; --all shows 4 more" in grid.notes


def test_key_metrics_take_what_was_measured() -> None:
    found = [str(c["name"]) for c in key_columns(COLUMNS[:5])]
    assert found == ["clip_edited", "clip_whole", "psnr_bg", "ssim_bg", "mse_bg"]


def test_the_command_prints_all_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for i in range(10):
        records = [ok("a", **dict.fromkeys(METRICS, 1.0 + i)), failed("b")]
        write_run(tmp_path / f"r-{i}", records, method("Ddim", steps=i), COLUMNS, name="run")
    main(["table", str(tmp_path)])
    brief = capsys.readouterr().out
    assert "--all shows 4 more" in brief
    assert "mse_bg" not in brief
    assert max(map(len, brief.splitlines())) <= 80
    assert [f"steps={i}" in brief for i in range(10)] == [True] * 10
    main(["table", str(tmp_path), "--all"])
    assert "mse_bg" in capsys.readouterr().out
    main(["table", str(tmp_path), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["run"], row["directory"]) for row in rows] == [
        (f"steps={i}", f"r-{i}") for i in range(10)
    ]


def test_one_is_one() -> None:
    said = [counted(1, "run"), counted(0, "case"), counted(1200, "record")]
    assert said == ["1 run", "0 cases", "1,200 records"]


def test_experiments_are_listed_as_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["experiment"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["experiment", "cost", "question"]
    assert {line.split()[0] for line in lines if line[:3].strip()} >= set(names())


def test_axes_are_labelled_in_words() -> None:
    column = {"name": "lpips_bg", "unit": "1e-3", "better": "lower", "digits": 1}
    assert axis_label(column) == "LPIPS of the background (× 10⁻³), lower is better"
    assert in_words("psnr_bg") == "PSNR of the background"
    assert in_words("my_metric") == "my metric"
