"""Judges, captioner and sentences of one world are refused with pictures of another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from zerocon.api import settings_of_edit
from zerocon.config.settings import compose_settings, directory_of
from zerocon.core.checks import ConfigError

SD = ["backbone=sd15", "backbone.path=sd15"]
PIE = ["dataset=pie_bench", "dataset.root=somewhere"]
SWAP = ["direction=word_swap"]  # needs no captioner
JUDGES = [
    "metrics.clip.path=some/clip",
    "metrics.clip.revision=abc",
    "metrics.lpips.net=squeeze",
    "metrics.structure.path=some/vit",
    "metrics.structure.revision=abc",
]


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_settings(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_choices_of_one_world_are_accepted() -> None:
    assert compose_settings([]).mixture == ""
    assert compose_settings([*SD, *SWAP, *PIE, *JUDGES]).mixture == ""
    assert compose_settings(["direction=sentences"]).mixture == ""


@pytest.mark.parametrize("metrics", ["masked", "published", "full"])
def test_photographs_are_not_judged_by_the_shapes_worlds_judges(metrics: str) -> None:
    said = refusal(*SD, *SWAP, *PIE, f"metrics={metrics}")
    assert "metrics.clip" in said.partition(" know the shapes world only")[0]
    for setting in ("metrics.clip.path=…", "metrics.lpips.net=squeeze", "metrics.structure.path=…"):
        assert setting in said
    assert "mixed_worlds=true" in said
    assert compose_settings([*SD, *SWAP, *PIE, f"metrics={metrics}", *JUDGES]).mixture == ""


def test_one_judge_is_enough_to_be_refused() -> None:
    said = refusal(*SD, *SWAP, *PIE, *[j for j in JUDGES if "clip" not in j])
    assert said.startswith("metrics.clip knows the shapes world only, but the backbone and the d")
    assert "; set metrics.clip.path=… (docs/metrics.md)" in said


def test_shapes_are_not_judged_by_judges_of_photographs() -> None:
    said = refusal("metrics.lpips.net=squeeze")
    assert "set metrics.lpips.net=shapes" in said


def test_a_local_judge_may_be_of_either_world(tmp_path: Path) -> None:
    assert compose_settings([f"metrics.clip.path={tmp_path}"]).mixture == ""


def test_backbone_and_dataset_are_of_one_world() -> None:
    assert "the backbone is of the shapes world and the dataset is of photographs" in refusal(*PIE)
    assert "the backbone is of photographs and the dataset is of the shapes world" in refusal(*SD)


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        (["direction=caption"], "set direction.captioner=…"),
        (["direction=sentences", "direction.bank=shapes"], "set direction.bank=photo"),
        (["direction=sentences", "direction.bank=shapes_elsewhere"], "set direction.bank=photo"),
        (["direction=caption", "direction.captioner=a/b", "direction.captioner_revision=c",
          "direction.bank=shapes"], "set direction.bank=photo"),
    ],
)  # fmt: skip
def test_captioner_and_sentences_know_their_world(overrides: list[str], setting: str) -> None:
    said = refusal(*SD, *PIE, *JUDGES, *overrides)
    assert said.startswith("direction knows the shapes world only")
    assert setting in said


def test_an_edit_without_a_source_prompt_is_not_captioned_by_another_world() -> None:
    with pytest.raises(ConfigError, match=r"set direction\.captioner=…"):
        settings_of_edit("", [*SD, "method=zerocon"])
    settings_of_edit("a cat", [*SD, "method=zerocon"])  # its judges judge nothing
    settings_of_edit("", ["method=zerocon"])


def test_the_paper_on_photographs_needs_a_captioner_and_has_sentences() -> None:
    said = refusal(*SD, *PIE, *JUDGES)
    assert "direction.captioner=… (a BLIP model; direction=prompt_pair needs none)" in said
    captioner = ["direction.captioner=a/blip", "direction.captioner_revision=abc"]
    settings = compose_settings([*SD, *PIE, *JUDGES, *captioner])
    assert settings.mixture == ""
    assert settings.config["direction"]["bank"] == "photo"


def test_an_edit_from_a_given_prompt_needs_no_captioner() -> None:
    given = settings_of_edit("a cat", SD)
    assert given.config["direction"]["_target_"] == "zerocon.directions.Sentences"
    others = settings_of_edit("a cat", [*SD, "method=pnp"]).config["direction"]["_target_"]
    assert others == "zerocon.directions.WordSwap"
    chosen = settings_of_edit("a cat", ["direction.strength=0.5"]).config["direction"]
    assert chosen["_target_"] == "zerocon.directions.Caption"


def test_mixed_worlds_allows_it_and_is_part_of_the_name() -> None:
    overrides = ["metrics.lpips.net=squeeze", "mixed_worlds=true"]
    settings = compose_settings(overrides)
    assert settings.mixture.startswith(
        "metrics.lpips, metrics.truth know photographs only, but the backb"
    )
    plain = compose_settings(["mixed_worlds=true"])
    assert plain.mixture == ""
    assert directory_of(plain.config) != directory_of(compose_settings([]).config)
    assert "it must be true or false" in refusal("mixed_worlds=maybe")


def test_shapes_pie_in_a_folder_is_of_the_shapes_world(tmp_path: Path) -> None:
    (tmp_path / "mapping_file.json").write_text('{"1": {"source_scene": {}}}')
    overrides = ["dataset=pie_bench", f"dataset.root={tmp_path}"]
    assert compose_settings(overrides).mixture == ""


def test_worlds_are_checked_without_loading_models() -> None:
    before = set(sys.modules)
    refusal(*SD, *PIE)
    assert not {m for m in set(sys.modules) - before if "modeling" in m}
