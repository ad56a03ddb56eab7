"""Hours and disk before a run: counted rows, torch's count of a row, and what is printed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests import random_weights
from zerocon.commands.experiment import _in_hours
from zerocon.config.settings import compose_settings
from zerocon.runs.hours import CARDS, DECODE, ENCODE, UNET_ROW, hours
from zerocon.runs.tally import Left, left_of

PAGE = Path(__file__).parents[2] / "docs" / "pie_bench.md"
TABLE = re.findall(
    r"^\| ([\w, ]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE
)


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
        decoded = counted(lambda: vae.decode(z))
    assert [row, encoded, decoded] == pytest.approx([UNET_ROW, ENCODE, DECODE], rel=0.01)


@pytest.mark.parametrize(("name", "rows", "small", "large"), TABLE)
def test_the_pages_hours_follow_from_its_rows(name: str, rows: str, small: str, large: str) -> None:
    shown = [f"{hours(int(rows), 700, card):.1f}" for card in CARDS]
    assert shown == [small, large]


def test_the_pages_table_is_there() -> None:
    assert len(TABLE) >= 5


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
