"""Settings of datasets: invalid ones are refused before anything is read or loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from zerocon.config.compose import compose_config, plain
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError

NOWHERE = "dataset.root=/nowhere/at/all"
FOLDER = ["dataset=folder", NOWHERE, "dataset.source=a cat", "dataset.target=a dog"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["dataset.limit=0"], "dataset.limit is 0; it must be at least 1, or null"),
        (["dataset.limit=-3"], "dataset.limit is -3"),
        (["dataset.subset=0"], "dataset.subset is 0; it must be at least 1"),
        (["dataset.subset_seed=-1"], "dataset.subset_seed is -1; it must be at least 0"),
        (["dataset.size=3"], r"dataset.size is 3; ShapesPIE comes in the sizes \[20, 100, 700\]"),
        (["dataset.split=train"], "dataset.split is 'train'; it must be one of test, validation"),
        (["dataset.edit_types=[11]"], "dataset.edit_types: '11' is not one of 0, 1"),
        (["dataset.edit_types=[]"], "dataset.edit_types is an empty list"),
        (["dataset.edit_types=[true]"], r"dataset.edit_types is \[True\]; it must be a list"),
        (["dataset.ids=[]"], "dataset.ids is an empty list"),
        (["dataset.ids=[null]"], r"dataset.ids is \[None\]; it must be a list, each item text"),
        (["dataset.ids=[[1]]"], r"dataset.ids is \[\[1\]\]; it must be a list"),
        (["dataset.ids=[1.5]"], r"dataset.ids is \[1.5\]; it must be a list"),
        (["dataset=magicbrush", NOWHERE, "dataset.edit_types=[4]"], "'4' is not one of 1, 2, 3"),
        (["dataset=pie_bench_pp", NOWHERE, "dataset.edit_types=[x]"], "'x' is not one of 0, 1"),
        (["dataset=pie_bench", NOWHERE, "dataset.protocol=loose"], "it must be one of: masked"),
        (
            ["dataset=pairs", NOWHERE, "dataset.file=list.txt"],
            "dataset.file is 'list.txt'",
        ),
        (
            ["dataset=pairs", NOWHERE, "dataset.world=mars"],
            "one of: shapes, photographs",
        ),
        (
            ["dataset=celebamask_hq", NOWHERE, "dataset.prompts=a"],
            "dataset.prompts is 'a'",
        ),
        ([*FOLDER[:3], "dataset.target='  '"], "dataset.target is '  '; it must be a prompt"),
        ([*FOLDER, "dataset.limit=0"], "dataset.limit is 0"),
    ],
)
def test_a_wrong_setting_is_refused_when_composing(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_settings(overrides)


FILTERS = {"limit": None, "ids": None, "subset": None, "subset_seed": 0}
TYPED = FILTERS | {"edit_types": None}
PLACE = {"root": "r"}
PIE = PLACE | {"protocol": "masked"}
EXPECTED = {
    "celebamask_hq": TYPED | PLACE | {"prompts": "prompts.csv"},
    "emu_edit": TYPED | PLACE | {"split": "validation"},
    "folder": FILTERS | PLACE | {"source": "a", "target": "b", "world": "photographs"},
    "magicbrush": TYPED | PLACE | {"split": "dev"},
    "pairs": TYPED | PLACE | {"file": "pairs.csv", "world": "photographs"},
    "pie_bench": TYPED | PIE,
    "pie_bench_pp": TYPED | PIE,
    "shapes": TYPED | {"root": None, "size": 20, "split": "test"},
    "ti2i": FILTERS | PIE | {"file": None},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_choice_composes_to(name: str) -> None:
    needed = ["dataset.source=a", "dataset.target=b"] if name == "folder" else []
    root = [] if name == "shapes" else ["dataset.root=r"]
    found = plain(compose_config([f"dataset={name}", *root, *needed]))["dataset"]
    found.pop("_target_")
    assert found == EXPECTED[name]


def test_every_choice_of_a_dataset_is_tested() -> None:
    files = (Path(__file__).parents[2] / "conf" / "dataset").glob("*.yaml")
    assert sorted(EXPECTED) == sorted(file.stem for file in files)


def test_the_published_protocol_reads_the_dataset_as_published() -> None:
    config = plain(compose_config(["dataset=pie_bench", NOWHERE, "metrics=published"]))
    assert config["dataset"]["protocol"] == "published"
