"""`zerocon bench --peers` and `--profile`: what they count, and what the framework itself takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from zerocon.cli import main
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.runs import measuring
from zerocon.runs.measuring import Passes, Stopwatch, Took, peak_bytes
from zerocon.runs.peers import Faced, Measured
from zerocon.runs.profiling import FORWARD, FRAMEWORK, Profile, profile

CPU = torch.device("cpu")


def test_rows_are_counted_with_and_without_a_gradient() -> None:
    network, passes = nn.Linear(2, 2), Passes()
    with passes.through(network):
        network(torch.ones(3, 2))
        network(torch.ones(2, 2, requires_grad=True))
        with torch.no_grad():
            network(torch.ones(4, 2, requires_grad=True))
    network(torch.ones(1, 2))
    assert (passes.forward, passes.backward) == (9, 2)


def test_the_peak_is_of_what_is_alive_at_once() -> None:
    def action() -> None:
        for _ in range(3):
            kept = torch.zeros(1000)
            del kept

    assert peak_bytes(CPU, action) == 4000


def test_a_section_inside_another_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr(measuring, "now", lambda _device: Took(next(times), 0.0))
    watch = Stopwatch(CPU)
    with watch.of("outer"), watch.of("inner"):
        pass
    assert watch.seconds == {"outer": 1.0 + 4.0, "inner": 2.0}


def test_a_ratio_is_by_the_picture_and_of_the_medians() -> None:
    ours = Measured(2, took=[Took(2.0, 9.0), Took(4.0, 9.0), Took(3.0, 9.0)])
    theirs = Measured(1, took=[Took(4.0, 9.0), Took(2.0, 9.0), Took(3.0, 9.0)])
    ours.operations, rate = 30, 20.0
    faced = Faced("a", ours, theirs, rate)
    assert faced.ratio == 0.5
    assert faced.spread == (0.25, 1.0)
    assert faced.floor == 0.25  # 15 operations a picture, at 20 a second, of 3 seconds


@pytest.mark.slow
def test_peers_are_measured_in_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "peers.json"
    asked = ["--steps", "2", "--batches", "1", "--repeats", "1", "--out", str(file)]
    main(["bench", "--peers", "zerocon", "sdedit", *asked])
    assert "theirs" in capsys.readouterr().out
    said = json.loads(file.read_text())
    assert said["machine"]["clock"] == "processor"
    zerocon, sdedit = said["faced"]
    # Of T = 2 steps: T of the inversion and 4 T forward, T back; theirs T + 6 T and 2 T.
    assert (zerocon["ours"]["rows_forward"], zerocon["ours"]["rows_backward"]) == (10, 2)
    assert (zerocon["theirs"]["rows_forward"], zerocon["theirs"]["rows_backward"]) == (14, 4)
    assert sdedit["ours"]["rows_forward"] == sdedit["theirs"]["rows_forward"] == 2
    assert zerocon["spread"][0] <= zerocon["ratio"] <= zerocon["spread"][1]
    # The same rows through the same network; ours embeds the source's prompt, too.
    assert 1 < sdedit["ours"]["gflop"] / sdedit["theirs"]["gflop"] < 1.03
    assert 0 < zerocon["floor"] < zerocon["ratio"]


def test_an_unknown_peer_is_named() -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--peers", "zerokon"])


def profiled(cases: int) -> Profile:
    overrides = ["method=zerocon", "direction=word_swap", "method.steps=4", "runner.batch_size=4"]
    return profile(compose_settings([*overrides, f"dataset.limit={cases}", "backbone.device=cpu"]))


@pytest.mark.slow
def test_the_frameworks_own_share_is_small_and_linear_in_cases() -> None:
    """In processor time: other programs do not change it by much."""
    few, many = profiled(4), profiled(12)
    assert many.own < 0.05 * many.total
    assert many.seconds[FORWARD] > 0.2 * many.total
    assert many.seconds[FRAMEWORK] < 1.5 * 3 * few.seconds[FRAMEWORK]
    assert all(value > 0 for value in many.seconds.values())


def test_a_profile_leaves_nothing_behind(tmp_path: Path) -> None:
    grad = torch.autograd.grad
    file = tmp_path / "profile.json"
    more = ["method.steps=1", "dataset.limit=1", f"runner.root={tmp_path / 'runs'}"]
    main(["bench", "--profile", "word_swap", "--out", str(file), "--overrides", *more])
    assert torch.autograd.grad is grad
    assert not (tmp_path / "runs").exists()
    shares = json.loads(file.read_text())["word_swap"]["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)


def test_names_of_other_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="speed"):
        compose_settings(["speed=faster"])
