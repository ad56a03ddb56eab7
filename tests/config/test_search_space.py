"""An experiment's `search`, and its values as overrides."""

from __future__ import annotations

from typing import Any

import pytest

from zerocon.config.compose import compose_config
from zerocon.config.search_space import Choices, Range, Search, spelt
from zerocon.core.checks import ConfigError


def searched(key: str, **said: Any) -> Search:
    return Search.read({"objectives": ["lpips_bg"], "space": {key: said}})


def test_a_space_of_every_kind() -> None:
    search = Search.read(
        {
            "objectives": ["lpips_bg", "edit_success"],
            "trials": 7,
            "space": {
                "loss.cut.tau": {"float": [0.02, 1], "log": True},
                "method.guidance": {"float": [2, 8], "step": 0.5},
                "loss.n_patches": {"int": [16, 256]},
                "loss.cut.query": {"choices": ["edit", "reference"]},
            },
        }
    )
    assert search.objectives == ("lpips_bg", "edit_success")
    assert (search.trials, search.seed) == (7, 0)
    assert search.space == {
        "loss.cut.tau": Range(0.02, 1, log=True),
        "method.guidance": Range(2, 8, step=0.5),
        "loss.n_patches": Range(16, 256, whole=True),
        "loss.cut.query": Choices(("edit", "reference")),
    }


@pytest.mark.parametrize(
    ("dimension", "value", "text"),
    [
        (Range(0.0, 1.0), 0.123456, "0.123"),
        (Range(0.001, 1.0, log=True), 0.00123456, "0.00123"),
        (Range(0.12345, 1.0), 0.12345, "0.12345"),  # rounded, it would be too small
        (Range(0.0, 1.0, step=0.1), 0.30000000000000004, "0.3"),
        (Range(1000.0, 2000.0, step=0.5), 1234.5, "1234.5"),
        (Range(1, 300, whole=True), 257, "257"),
    ],
)
def test_numbers_are_short_and_within_their_bounds(
    dimension: Range, value: float, text: str
) -> None:
    assert dimension.spelt(value) == text


def test_a_space_without_trials_of_invalid_settings() -> None:
    assert Range(2, 8, step=0.5).holds(4.5)
    assert not Range(2, 8, step=0.5).holds(4.4)
    assert not Range(2, 8).holds(8.1)
    assert not Range(2, 8, whole=True).holds(4.5)
    assert not Range(0, 1).holds(True)
    assert not Range(0, 1).holds({"a": 1})
    assert Choices(("edit", "null")).holds(None)
    assert not Choices(("edit", "null")).holds("query")


@pytest.mark.parametrize(
    "value", ["edit", "up.*.self", "true", "None", "it's", [1, 2], 0.5, 3, True, None, ""]
)
def test_overrides_say_what_the_file_says(value: object) -> None:
    """Hydra parses the text to the same value."""
    cfg = compose_config([f"+anything={spelt(value)}"])
    assert cfg.anything == value
    assert type(cfg.anything) is type(value) or isinstance(value, list)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"flaot": [0, 1]}, r"loss\.cut\.tau is \{'flaot'.*it must be like \{float"),
        ({"float": [0, 1], "int": [0, 1]}, "it must be like"),
        ({"float": [0.1]}, r"loss\.cut\.tau\.float is \[0\.1\]; it must be two numbers"),
        ({"float": ["a", 2]}, "must be two numbers"),
        ({"int": [1, 2.5]}, "must be two whole numbers"),
        ({"float": [2, 1]}, "the first must be the smaller one"),
        ({"float": [0, 1], "log": True}, "log needs bounds above 0"),
        ({"float": [0, 1], "log": "yes"}, r"log is 'yes'; it must be true or false"),
        ({"float": [0, 1], "step": 2}, r"step is 2; it must lie between 0 and 1"),
        ({"float": [0, 1], "step": 0.3}, r"no whole number of steps of 0\.3 leads from 0 to 1"),
        (
            {"float": [0, 1], "setp": 0.3},
            r"loss\.cut\.tau\.setp: there is no such key; there are float",
        ),
        ({"choices": ["a"]}, "must list two values or more"),
        ({"choices": ["a", "b", "a"]}, "lists a value twice"),
    ],
)
def test_a_bad_dimension_is_named(said: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        searched("loss.cut.tau", **said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": []}, r"search\.objectives must list the metrics"),
        ({"objectives": "lpips_bg"}, r"search\.objectives must list the metrics"),
        ({"space": {}}, r"search\.space is \{\}; it must be a mapping of settings"),
        ({"trials": 0}, r"search\.trials is 0; it must be at least 1"),
        ({"trials": 2.5}, r"search\.trials is 2\.5; it must be a whole number"),
        ({"seed": -1}, r"search\.seed is -1"),
        ({"sampler": "tpe"}, r"search\.sampler: there is no such key; there are objectives"),
    ],
)
def test_a_bad_search_is_named(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"objectives": ["a"], "space": {"loss.cut.tau": {"float": [1, 2]}}}
    with pytest.raises(ConfigError, match=message):
        Search.read(good | changes)
