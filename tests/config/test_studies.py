"""An experiment's `study`: methods tuned with the same budget."""

from __future__ import annotations

from typing import Any

import pytest

from tests.marks import every
from zerocon.config.experiments import names, read_experiment
from zerocon.config.search_space import Range, Search
from zerocon.config.settings import compose_settings
from zerocon.config.study import Study, Tuned
from zerocon.core.checks import ConfigError

METHODS: dict[str, Any] = {
    "sdedit": {
        "overrides": ["method=sdedit"],
        "space": {"method.strength": {"float": [0.3, 0.9]}},
    },
    "pnp": {"overrides": ["method=pnp"], "space": {"method.attention": {"float": [0, 1]}}},
}
CONTENT: dict[str, Any] = {
    "objectives": ["lpips_bg", "edit_success"],
    "trials": 7,
    "tune": ["dataset.split=validation"],
    "test": ["dataset.split=test"],
    "points": 2,
    "seeds": [0, 3],
    "methods": METHODS,
}


def test_a_study_with_everything() -> None:
    study = Study.read(CONTENT)
    assert study.methods["pnp"] == Tuned(("method=pnp",), {"method.attention": Range(0, 1)})
    assert (study.trials, study.seed, study.points, study.seeds) == (7, 0, 2, (0, 3))
    space = {"method.strength": Range(0.3, 0.9)}
    assert study.search("sdedit") == Search(("lpips_bg", "edit_success"), space, trials=7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"point": 2}, r"study\.point: there is no such key"),
        ({"points": 0}, r"study\.points is 0"),
        ({"seeds": [1, 1]}, r"study\.seeds is \[1, 1\]; it has a seed twice"),
        ({"seeds": []}, r"study\.seeds is \[\]; it must be like \[0, 1, 2\]"),
        ({"tune": "dataset.split=test"}, r"study\.tune is .*; it must be a list of overrides"),
        ({"methods": {"pnp": METHODS["pnp"]}}, r"must name two methods or more"),
        (
            {"methods": METHODS | {"pnp": {"overrides": ["method=pnp"]}}},
            r"study\.methods\.pnp: search\.space is None",
        ),
        ({"trials": 0}, r"study\.methods\.sdedit: search\.trials is 0"),
        ({"objectives": []}, r"search\.objectives must list"),
    ],
)
def test_what_is_wrong_in_a_study_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Study.read(CONTENT | changes)


STUDIES = {name: study for name in names() if (study := read_experiment(name).study)}


@pytest.mark.parametrize(
    ("name", "method"),
    every(4, [(name, method) for name, s in STUDIES.items() for method in s.methods]),
)
def test_a_committed_studys_spaces_hold_settings_that_compose(name: str, method: str) -> None:
    study, tuned = STUDIES[name], STUDIES[name].methods[method]
    shared = [*read_experiment(name).overrides, *tuned.overrides]
    lows = [f"{key}={dimension.ends[0]}" for key, dimension in tuned.space.items()]
    highs = [f"{key}={dimension.ends[-1]}" for key, dimension in tuned.space.items()]
    low = compose_settings([*shared, *study.tune, *lows])
    high = compose_settings([*shared, *study.test, *highs])
    assert low.config["dataset"]["split"] == "validation"
    assert high.config["dataset"]["split"] == "test"
