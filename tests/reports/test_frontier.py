from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made_up import LPIPS, SUCCESS, method, ok, write_run
from PIL import Image

from zerocon.cli import main
from zerocon.core.checks import ConfigError
from zerocon.reports.frontier.curves import (
    Points,
    box,
    curve_runs,
    frontier_of,
    hypervolume,
    pareto,
    volumes,
)
from zerocon.reports.frontier.plot import Curve, frontier_figure
from zerocon.reports.frontier.table import frontier
from zerocon.reports.runs import Run, find_runs
from zerocon.reports.store import Store

CASES = 30


def write_sweep(folder: Path, cls: str, setting: str, ahead: float, seed: int = 0) -> None:
    """Strength 1, 2, 3 edits more and preserves less; `ahead` is better in both."""
    random = np.random.default_rng((seed, len(cls)))
    for strength in (1, 2, 3):
        records = [
            ok(
                str(i),
                lpips_bg=20 * strength - ahead + random.normal(0, 1),
                edit_success=0.2 * strength + ahead / 50 + random.normal(0, 0.02),
            )
            for i in range(CASES)
        ]
        config = method(cls, seed, **{setting: strength})
        write_run(folder / f"{cls}-{strength}-{seed}", records, config)


def test_hypervolume_by_hand() -> None:
    # 3 × 1, then 1 × 1 more above it from the left, the dominated point adds nothing
    points = np.array([[3.0, 1.0], [1.0, 2.0], [0.5, 0.5]])
    assert hypervolume(points, np.zeros(2)) == 4
    assert hypervolume(points, np.array([0.5, 0.0])) == 3
    assert hypervolume(points - 10, np.zeros(2)) == 0  # worse than the reference
    random = np.random.default_rng(0)
    many = random.random((6, 5, 2))
    drawn = random.random((20_000, 2))
    covered = (drawn[None, :, None] <= many[:, None]).all(-1).any(-1).mean(-1)
    np.testing.assert_allclose(hypervolume(many, np.zeros(2)), covered, atol=0.02)


def test_pareto_by_hand() -> None:
    points = np.array([[1.0, 3], [2, 2], [2, 2], [1, 2], [3, 1], [3, 0]])
    assert pareto(points).tolist() == [True, True, True, False, True, False]


def test_the_box_reaches_a_tenth_beyond_the_worst() -> None:
    worst, best = box(np.array([[0.0, -5.0], [10.0, -5.0]]))
    np.testing.assert_allclose(worst, [-1, -5.1])
    np.testing.assert_allclose(best, [10, -5])


TWO = ((2.0, 1.0), (1.0, 2.0))
CURVES = {  # the true means of each curve's points
    "one": [TWO],
    "one far behind": [TWO, ((1.0, 0.2), (0.2, 1.0))],
    "one that dominates": [((3.0, 3.0), (2.8, 2.9)), ((1.0, 1.5), (1.5, 1.0))],
    "three": [tuple((x - d, y - d) for x, y in ((3, 1), (2, 2), (1, 3))) for d in (0, 0.3, 0.6)],
}


@pytest.mark.parametrize("name", CURVES)
def test_intervals_of_hypervolume_cover_the_truth_and_stay_in_the_box(name: str) -> None:
    """The truth is the share of the same box that the true means dominate."""
    curves = [np.array(points, dtype=float) for points in CURVES[name]]
    truth = np.concatenate(curves)
    ends = np.cumsum([0, *map(len, curves)]).tolist()
    members = [range(a, b) for a, b in pairwise(ends)]
    covered = np.zeros(len(curves))
    repetitions, cases = 150, 60
    for seed in range(repetitions):
        noise = np.random.default_rng(seed).normal(0, 1, (2, len(truth), cases))
        x, y = truth.T[:, :, None] + noise
        points = Points(x, y, (SUCCESS, SUCCESS))
        found = volumes(points, members, resamples=400, seed=seed)
        reference, ideal = box(points.means(np.full((1, cases), 1 / cases))[0])
        area = float(np.prod(ideal - reference))
        for place, (curve, volume) in enumerate(zip(curves, found, strict=True)):
            true = float(hypervolume(curve, reference, ideal)) / area
            covered[place] += volume.low <= true <= volume.high
            assert 0 <= volume.low <= volume.share <= volume.high <= 1
    assert (covered / repetitions >= 0.88).all(), covered / repetitions


def test_the_volume_outside_of_the_box_does_not_count() -> None:
    points = np.array([[5.0, 1.0], [1.0, 2.0]])
    assert hypervolume(points, np.zeros(2)) == 6
    assert hypervolume(points, np.zeros(2), np.array([2.0, 2.0])) == 3


def test_means_say_over_how_many_cases_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some cases have no mask, and so no background."""
    for strength in (1.0, 2.0):
        some = [ok(str(i), lpips_bg=strength + i, edit_success=float(i % 2)) for i in range(4)]
        others = [ok(str(i), edit_success=strength) for i in range(4, 10)]
        write_run(tmp_path / f"{strength}", [*some, *others], method("Ddim", guidance=strength))
    frontier([tmp_path], form="markdown", resamples=100)
    text = capsys.readouterr().out
    assert (
        "means ± standard error over cases: n = 10 each for edit_success, 4 each for lpips_bg"
        in text
    )
    frontier([tmp_path], form="csv", resamples=100)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["lpips_bg n"], row["edit_success n"]) for row in rows] == [("4", "10")] * 2


def test_names_with_dollar_signs_are_drawn(tmp_path: Path) -> None:
    write_sweep(tmp_path / "runs", "Plain", "$\\frac$", ahead=0)
    frontier([tmp_path / "runs"], plot=tmp_path / "front.png", form="csv", resamples=100)
    assert (tmp_path / "front.png").exists()


def test_the_legend_of_many_curves_stays_inside_the_figure() -> None:
    none = np.zeros(1)
    curves = [
        Curve(
            f"a_method_{k}",
            "method.a_long_setting",
            ["1"],
            np.full(1, k),
            np.full(1, k),
            none,
            none,
        )
        for k in range(21)
    ]
    figure = frontier_figure(curves, LPIPS, SUCCESS, np.array([[1.0, 0.5]]))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert figure.bbox.x0 <= legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_the_better_method_has_the_front_and_the_larger_volume(tmp_path: Path) -> None:
    write_sweep(tmp_path, "Plain", "guidance", ahead=0)
    write_sweep(tmp_path, "Better", "strength", ahead=5)
    made = of(find_runs([tmp_path]))
    assert [(c.name, c.setting) for c in made.curves] == [
        ("Better", "method.strength"),
        ("Plain", "method.guidance"),
    ]
    assert made.on_front.tolist() == [True] * 3 + [False] * 3
    better, plain = made.volumes
    assert better.low <= better.share <= better.high
    assert better.behind == 0
    assert 0 < plain.behind_low < plain.behind < plain.behind_high
    assert plain.share == pytest.approx(better.share - plain.behind)
    np.testing.assert_allclose(made.curves[1].x, [20, 40, 60], atol=1)
    np.testing.assert_allclose(made.curves[1].y, [0.2, 0.4, 0.6], atol=0.02)


def of(runs: list[Run], **how: tuple[str, ...]):
    cells = Store(runs, [LPIPS, SUCCESS]).cells()
    curves = curve_runs(runs, how.get("by", ()), how.get("along", ()))
    return frontier_of(runs, (LPIPS, SUCCESS), cells, curves, resamples=500)


def test_seeds_are_averaged_into_one_point(tmp_path: Path) -> None:
    write_sweep(tmp_path, "Plain", "guidance", ahead=0, seed=0)
    write_sweep(tmp_path, "Plain", "guidance", ahead=1, seed=1)
    (curve,) = of(find_runs([tmp_path])).curves
    assert list(curve.values) == ["1", "2", "3"]
    np.testing.assert_allclose(curve.x, [19.5, 39.5, 59.5], atol=0.5)


def test_words_separate_curves_and_numbers_are_swept(tmp_path: Path) -> None:
    for prompt in ("source", "target"):
        for guidance in (1.0, 10.0, 4.0):
            config = method("Ddim", prompt=prompt, guidance=guidance)
            write_run(tmp_path / f"{prompt}{guidance}", [ok("a")], config)
    write_run(tmp_path / "sdedit", [ok("a")], method("SDEdit", strength=0.5))
    made = curve_runs(find_runs([tmp_path]), (), ())
    assert [(s.name, s.setting, list(s.points)) for s in made] == [
        ("Ddim, prompt source", "method.guidance", ["1.0", "4.0", "10.0"]),
        ("Ddim, prompt target", "method.guidance", ["1.0", "4.0", "10.0"]),
        ("SDEdit, prompt –", "", [""]),
    ]


def test_two_swept_settings_need_a_choice(tmp_path: Path) -> None:
    for a, b in ((1, 1), (1, 2), (2, 1)):
        write_run(tmp_path / f"{a}{b}", [ok("a")], method("Ddim", guidance=a, steps=b))
    runs = find_runs([tmp_path])
    with pytest.raises(ConfigError, match=r"differ in method\.guidance, method\.steps.*--along"):
        curve_runs(runs, (), ())
    (curve,) = curve_runs(runs, (), ("method.steps",))
    assert {value: len(of_point) for value, of_point in curve.points.items()} == {"1": 2, "2": 1}


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path / "runs", "Plain", "guidance", ahead=0)
    write_sweep(tmp_path / "runs", "Better", "strength", ahead=5)
    plot = tmp_path / "plots" / "front.png"
    main(["frontier", f"{tmp_path}/runs/**", "--plot", str(plot), "--resamples", "500"])
    text = capsys.readouterr().out
    assert text.count("yes") == 3
    assert "hypervolume: share of the box" in text
    with Image.open(plot) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20) or []}
        assert picture.width > 1000
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)} & colors
    main(["frontier", str(tmp_path / "runs"), "--plot", str(plot), "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["on the front"] for row in rows] == ["True"] * 3 + ["False"] * 3


def test_metrics_without_a_better_or_a_value_make_no_frontier(tmp_path: Path) -> None:
    share = {"name": "bg_share", "unit": "", "better": "", "digits": 3}
    columns = [LPIPS, SUCCESS, share]
    run = write_run(tmp_path / "run", [ok("a", bg_share=0.5)], method("Ddim"), columns)
    with pytest.raises(ConfigError, match="bg_share has no better direction"):
        frontier([run], x="bg_share")
    with pytest.raises(ConfigError, match=r"no run measured 'fid'; choose with --y"):
        frontier([run], y="fid")
    with pytest.raises(ConfigError, match="Ddim has no case in which"):
        frontier([run])
