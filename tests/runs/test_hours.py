"""Hours and disk before a run: counted rows, torch's count of a row, and what is printed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import hours as hours_table
from tests import random_weights
from tests.marks import slow_but_for
from zerocon.commands.experiment import _in_hours
from zerocon.config.places import CONF
from zerocon.config.settings import RunSettings, compose_settings
from zerocon.runs.hours import DECODE, ENCODE, UNET_ROW
from zerocon.runs.tally import Left, left_of

PAGE = Path(__file__).parents[2] / "docs" / "pie_bench.md"
LINES: list[str] = re.findall(
    r"^\| [^|]+ \| \d+ \| \d* ?\| [^|]+ \|.*$", PAGE.read_text("utf-8"), re.MULTILINE
)
NAMES = [line.split(" | ")[0].removeprefix("| ") for line in LINES]


# Published for flow models or, TurboEdit, for SDXL-Turbo.
ELSEWHERE = {
    "consistedit", "dnaedit", "fireflow", "flowalign", "flowedit", "ftedit", "kv_edit",
    "kv_sharing", "rf_inversion", "rf_solver_edit", "turbo_edit", "uniedit",
}  # fmt: skip


def counted(action: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        action()
    return float(counter.get_total_flops())


def test_a_row_costs_what_torch_counts() -> None:
    with torch.device("meta"), torch.no_grad():
        unet, vae = random_weights.unet(), random_weights.vae()
        z, tokens = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        row = counted(lambda: unet(z, torch.empty(1), tokens))
        encoded = counted(lambda: vae.encode(torch.empty(1, 3, 512, 512)))
        decoded = counted(lambda: vae.decode(z))  # pyright: ignore[reportArgumentType]
    assert [row, encoded, decoded] == pytest.approx([UNET_ROW, ENCODE, DECODE], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but_for(["sdedit"], NAMES))
def test_the_pages_table_is_what_its_command_prints(name: str) -> None:
    assert hours_table.line(name) == LINES[NAMES.index(name)]


@pytest.mark.slow
def test_the_pages_table_has_every_method_of_the_u_net() -> None:
    assert list(hours_table.RUNS) == NAMES
    listed = {type(_on_sd15(run).method) for run in hours_table.RUNS.values()}
    methods = {file.stem for file in (CONF / "method").glob("*.yaml")} - ELSEWHERE
    assert {type(_on_sd15([f"method={name}"]).method) for name in methods} == listed


def _on_sd15(overrides: Sequence[str]) -> RunSettings:
    return compose_settings(["backbone=sd15", *overrides], worlds="any")


def test_an_experiments_total_is_said(tmp_path: Path) -> None:
    random_weights.write_pie_bench(tmp_path)
    real = compose_settings(
        ["backbone=sd15", "method=pnp", "metrics=sd", "dataset=pie_bench", "method.steps=2",
         f"dataset.root={tmp_path}"]
    )  # fmt: skip
    said = _in_hours([real, real])
    # Two steps of three rows after two of inversion, for each of two edits.
    assert said.startswith("In total 2 edits, 16 rows through the network: about 0 h on")
    assert "GB on disk" in said
    shapes = compose_settings(["dataset.size=20"])
    assert _in_hours([shapes]) == ""


def test_without_its_dataset_nothing_is_said(tmp_path: Path) -> None:
    absent = compose_settings(
        ["backbone=sd15", "method=pnp", "metrics=sd", "dataset=pie_bench",
         f"dataset.root={tmp_path / 'absent'}"]
    )  # fmt: skip
    assert _in_hours([absent]) == ""
    assert left_of([absent]) == [Left(0, 0)]
