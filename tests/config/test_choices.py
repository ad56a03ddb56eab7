"""conf/ agrees with the classes: names, settings, defaults."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from functools import cache
from importlib import import_module
from typing import Any

import pytest

from tests.marks import every
from zerocon.config.bind import TARGET, UNSTATED, Declared
from zerocon.config.compose import GROUPS, compose_config, kind_of, plain
from zerocon.config.places import CONF
from zerocon.config.settings import RunnerSettings
from zerocon.core.registry import ROOMS, find, names, public_name
from zerocon.datasets.base import Filters

FILES = [
    (group, file.stem)
    for group in GROUPS
    for file in sorted((CONF / group).glob("*.yaml"))
]  # fmt: skip
# Choices that are a class at other settings than its own: the difference is what they are for.
VARIANTS = {
    ("method", "pix2pix_zero"), ("method", "reconstruct"), ("method", "zerocon_plus"),
    ("method", "fireflow"), ("method", "kv_sharing"),
    ("inversion", "h_edit"), ("inversion", "ftedit"),
    ("loss", "cds"), ("loss", "cut"), ("loss", "pix2pix_zero"), ("loss", "zecon"),
    ("loss", "zerocon_plus"),
    ("metrics", "published"), ("metrics", "full"),
    ("backbone", "sd14"), ("backbone", "sd15"), ("backbone", "sd21"), ("backbone", "sd21_base"),
    ("backbone", "sdxl"), ("backbone", "flux_schnell"), ("metrics", "sd"),
}  # fmt: skip
# Settings whose value in conf/ follows from another choice; the class's own default is for
# Python, where there is no other choice to follow. In conf/ they are interpolations.
FOLLOWS = "${"
FILTERS = {field.name: field.default for field in dataclasses.fields(Filters)}


@cache
def settings(group: str, name: str) -> dict[str, Any]:
    """A choice's settings as in its file, with interpolations."""
    from omegaconf import OmegaConf

    overrides = [f"{group}={name}", "method=word_swap"] if group == "loss" else [f"{group}={name}"]
    cfg = compose_config(overrides)
    shown: Any = OmegaConf.to_container(cfg[group], resolve=False)
    return dict(shown)


def nodes(group: str, name: str) -> list[tuple[str, dict[str, Any]]]:
    node = settings(group, name)
    if group == "loss":
        return [(f"loss.{key}", value) for key, value in node.items() if isinstance(value, dict)]
    if group != "metrics":
        return [(group, node)]
    return [(f"metrics.{key}", value) for key, value in node.items() if isinstance(value, dict)]


@pytest.mark.parametrize(("group", "name"), every(3, FILES))
def test_conf_has_every_setting_with_the_classs_default(group: str, name: str) -> None:
    """The class is the only source of defaults; conf/ shows them."""
    for path, node in nodes(group, name):
        if group == "runner":
            choice: Any = RunnerSettings
        else:
            kind = "loss term" if group == "loss" else kind_of(group)
            choice = find(kind, node[TARGET])
        declared = Declared.of(choice)
        for key, value in node.items():
            if key == TARGET or key not in declared.named:
                continue
            default = declared.named[key].default
            if default is UNSTATED:
                default = FILTERS[key]
            follows = isinstance(value, str) and value.startswith(FOLLOWS)
            if follows or value == "???" or default is inspect.Parameter.empty:
                continue
            if (group, name) not in VARIANTS:
                listed = list(default) if isinstance(default, tuple) else default
                assert value == listed, f"{path}.{key} is {value} in conf/, {default} in the class"


@pytest.mark.parametrize(
    ("group", "name"), [(g, n) for g, n in FILES if g not in ("metrics", "runner", "loss")]
)
def test_conf_shows_every_setting(group: str, name: str) -> None:
    node = settings(group, name)
    declared = Declared.of(find(group, node[TARGET]))
    # What is handed over later, or is for Python alone.
    missing = set(declared.named) - set(node) - {"pixels", "loss", "noisy_border", "edit_types"}
    assert not missing


def test_public_names_are_offered_without_torch() -> None:
    code = (
        "import sys\n"
        f"for room in {sorted(set(ROOMS.values()))!r}:\n"
        "    __import__(room)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ROOMS)
def test_a_package_offers_the_classes_that_it_lists(kind: str) -> None:
    room = import_module(ROOMS[kind])
    offered = {name for k in ROOMS if ROOMS[k] == ROOMS[kind] for name in names(k)}
    own = {name for name in offered if name.startswith("zerocon.")}
    assert own == {f"{ROOMS[kind]}.{name}" for name in room.__all__}
    for name in names(kind):
        if name.startswith("zerocon."):
            assert getattr(room, name.rpartition(".")[2]) is find(kind, name)


def test_configs_name_classes_without_their_files() -> None:
    for file in sorted(CONF.rglob("*.yaml")):
        for line in file.read_text().splitlines():
            if line.strip().startswith(TARGET):
                assert line.split()[1].count(".") == 2, f"{file}: {line}"


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("method", "zerocon.methods.ddim.DDIM", "zerocon.methods.DDIM"),
        ("method", "zerocon.methods.DDIM", "zerocon.methods.DDIM"),
        ("loss", "zerocon.guidance.NoLosses", "zerocon.losses.NoLosses"),
        ("tracker", "zerocon.runs.trackers.WandbTracker", "zerocon.trackers.WandbTracker"),
        ("method", "zerocon.methods.ddim.Elsewhere", "zerocon.methods.ddim.Elsewhere"),
        ("method", "mine.DDIM", "mine.DDIM"),
    ],
)
def test_names_of_earlier_versions_are_understood(kind: str, old: str, new: str) -> None:
    assert public_name(kind, old) == new


def test_a_config_has_public_names_and_canonical_numbers() -> None:
    given = ["method._target_=zerocon.methods.zerocon.ZeroCon", "method.guidance=3.0"]
    config = plain(compose_config(given))
    assert config == plain(compose_config(["method.guidance=3"]))
    assert config["method"][TARGET] == "zerocon.methods.ZeroCon"
