"""What a command says of how far it is."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.marks import slow_but_for
from tests.runs.toy_runs import settings_at, use_toys
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.settings import compose_settings
from zerocon.core import threads
from zerocon.runs import progress, runner
from zerocon.runs.costs import Costs
from zerocon.runs.counting import count_rows
from zerocon.runs.expected import expected
from zerocon.runs.progress import Clock, Display, Far, Working, duration, far
from zerocon.runs.tally import Place, left_of, places_of, summary_of
from zerocon.runs.threads import FILE, threads_of

PRIOR = {"inversion": 10.0, "editing": 30.0}


def test_evaluations_are_counted_within_a_batch() -> None:
    at_work = Working("editing", cases=4, batch=100, rows=100, per_case={"inversion": 10.0})
    now = far([at_work], PRIOR, recorded=0, cases=20, left=20)
    assert (now.done, now.total) == (100, 20 * 40)
    assert now.said == "0 of 20 cases, editing"


def test_a_batch_replaces_what_was_expected() -> None:
    seen = {"inversion": 10.0, "editing": 50.0}
    at_work = Working("inversion", cases=4, batch=0, rows=240, per_case=seen)
    now = far([at_work], PRIOR, recorded=4, cases=8, left=4)
    assert now.total == 240 + 4 * 60
    from_cache = Working("", cases=0, batch=0, rows=120, per_case={"inversion": 0.0, "editing": 30})
    assert far([from_cache], PRIOR, 4, 8, 4).total == 120 + 4 * 30


def test_a_batch_that_is_scored_has_no_evaluations_left() -> None:
    scored = Working("scoring", cases=2, batch=70, rows=70, per_case={"editing": 25.0})
    assert far([scored], PRIOR, 0, 2, 2).total == 70


def test_several_workers_add_up() -> None:
    workers = [Working("editing", 2, 40, 40), Working("scoring", 2, 80, 80), Working(rows=5)]
    now = far(workers, PRIOR, 0, 6, 6)
    assert (now.done, now.total) == (125, 125 + 40 + 2 * 40)
    assert now.said == "0 of 6 cases, editing and scoring"


def test_time_left_is_there_from_the_first_evaluation_on(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.0, 110.0, 110.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    clock = Clock()
    clock.begin(Far(0, 400, ""))
    assert clock.words(Far(0, 400, "")) == ""
    assert clock.words(Far(40, 400, "")) == "about 1 min 30 s left"
    said = clock.words(Far(40, 400, "", later=360))
    assert said == "about 1 min 30 s left, 3 min for all runs"


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 59, 60, 80, 3600, 7500)] == [
        "0 s", "59 s", "1 min", "1 min 20 s", "1 h", "2 h 5 min",
    ]  # fmt: skip


def test_plain_lines_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SOON", 0.02)
    monkeypatch.setattr(progress, "EVERY", 0.02)
    out, done = io.StringIO(), iter(range(1000))
    with Display(lambda: Far(next(done), 2000, "0 of 20 cases"), Console(file=out)):
        time.sleep(0.3)
    lines = out.getvalue().splitlines()
    assert len(lines) >= 3
    assert lines[0].startswith("0 of 20 cases; 1 of about 2,000 evaluations (0 %); about ")
    assert "\x1b" not in out.getvalue()


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REFRESH", 0.02)
    out = io.StringIO()
    shown = Console(file=out, force_terminal=True, width=100)
    with Display(lambda: Far(50, 100, "3 of 20 cases, editing"), shown):
        time.sleep(0.3)
    assert "3 of 20 cases, editing" in out.getvalue()


def test_a_run_says_what_is_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_toys(monkeypatch)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.BUSY, "others", lambda: 0.0)
    settings = settings_at(tmp_path / "out")
    runner.execute(settings, Place(2, 3))
    said = capsys.readouterr().err
    cores = threads.cores()
    assert said.splitlines()[0].startswith("run 2 of 3, run: toy on ")
    threads_said = f"1 thread of {cores} (the model is small)"
    where = f"results in {settings.directory}"
    assert f"{threads_said}; batches of 4; 23 cases to do; {where}" in said


def test_a_set_of_runs_has_a_total(tmp_path: Path) -> None:
    runs = [
        compose_settings([f"runner.root={tmp_path}", "dataset.limit=3", f"method.steps={steps}"])
        for steps in (10, 20)
    ]
    rows = [3 * sum(expected(run).values()) for run in runs]
    first, last = places_of(left_of(runs))
    assert (first.number, first.count, first.later) == (1, 2, rows[1])
    assert last.later == 0
    assert summary_of(left_of(runs)) == (
        f"2 runs, 0 of them finished; 6 cases to do, about {sum(rows):,.0f} evaluations"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    slow_but_for(["method=zerocon", "method=pnp", "method=sdedit", "method=word_swap"], [
     "method=zerocon", "method=pnp", "method=p2p", "method=masactrl",
     "method=reconstruct", "method=dds", "method=sdedit", "method=word_swap",
     "method=infedit", "method=h_edit", "method=cds",
     "method=turbo_edit", "method=word_swap inversion=null_text",
     "method=word_swap inversion=fixed_point"]),
)  # fmt: skip
def test_what_is_expected_is_about_right(choice: str, backbone: StableDiffusionBackbone) -> None:
    settings = compose_settings([*choice.split(), "method.steps=10"], worlds="edit")
    counted, guessed = count_rows(settings, backbone), sum(expected(settings).values())
    assert 0.4 < guessed / counted.edit < 2.5


def test_progress_asks_nothing_of_the_device(
    backbone: StableDiffusionBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread reads counters; it calls nothing that would wait for a GPU."""
    costs = Costs()

    def synchronize(device: object = None) -> None:
        pytest.fail("it waits")

    monkeypatch.setattr("torch.cuda.synchronize", synchronize)
    with costs.batch(backbone, 2):
        assert costs.working(backbone).cases == 2
    assert costs.working(backbone).cases == 0


def test_a_continued_run_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "_online", lambda: 8)
    monkeypatch.setattr(threads.BUSY, "others", lambda: 0.0)
    given = compose_settings([f"runner.root={tmp_path}", "backbone=sd15"], worlds="any")
    assert threads_of(given).threads == 8
    monkeypatch.setattr(threads.BUSY, "others", lambda: 6.0)
    assert threads_of(given).words() == "8 threads of 8 (as when the run began)"
    asked = replace(given, runner=replace(given.runner, threads=2))
    assert threads_of(asked).threads == 2
    (given.directory / FILE).write_text("damaged")
    assert threads_of(given).threads == 2


@pytest.mark.parametrize("backbone", ["shapes", "shapes_flow"])
def test_a_small_model_computes_in_one_thread(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: 8)
    given = compose_settings([f"runner.root={tmp_path}", f"backbone={backbone}"], worlds="any")
    assert threads_of(given).words() == "1 thread of 8 (the model is small)"
    told = replace(given, runner=replace(given.runner, threads=3))
    assert threads_of(told).threads == 3
