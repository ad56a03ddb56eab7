from __future__ import annotations

from pathlib import Path

import pytest

from zerocon.core.naming import content_of, digest, digest_of_settings, is_in_name


def test_the_digest_depends_on_the_content() -> None:
    config = {"method": {"steps": 50, "name": "pnp"}, "seed": 0}
    assert digest(config) == digest({"seed": 0, "method": {"name": "pnp", "steps": 50}})
    assert digest(config) != digest(config | {"seed": 1})
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})
    # A run's directory is named by it: a change here makes every finished run unfindable.
    assert digest(config) == "3c2144dea8"
    with pytest.raises(TypeError):
        digest({"path": Path()})


def test_a_whole_number_is_one_setting_with_or_without_a_point() -> None:
    assert digest({"guidance": 4}) == digest({"guidance": 4.0})
    assert digest({"sides": [1, 2.0]}) == digest({"sides": [1.0, 2]})
    assert digest({"guidance": 4.5}) != digest({"guidance": 4})
    assert digest({"on": True}) != digest({"on": 1})


def test_moving_a_class_to_another_file_renames_no_run() -> None:
    def named(target: str) -> str:
        return digest({"method": {"_target_": target, "steps": 50}})

    assert named("zerocon.methods.ddim.DDIM") == named("zerocon.methods.DDIM")
    assert named("zerocon.guidance.Losses") == named("zerocon.losses.terms.Losses")
    assert named("zerocon.methods.DDIM") != named("zerocon.methods.DDS")
    assert named("mine.DDIM") != named("zerocon.methods.DDIM")
    assert named("mine.a.DDIM") != named("mine.b.DDIM")


def test_settings_that_change_no_number_are_not_in_the_name() -> None:
    config = {"name": "a", "seed": 0, "dataset": {"root": "x", "limit": 2}, "runner": {"root": "y"}}
    assert content_of(config) == {"name": "a", "seed": 0, "dataset": {"limit": 2}}
    moved = config | {"name": "b", "dataset": {"root": "z", "limit": 2}}
    assert digest_of_settings(moved) == digest_of_settings(config)
    assert digest_of_settings(config | {"seed": 1}) != digest_of_settings(config)


def test_a_deterministic_run_has_its_own_name() -> None:
    """Its results are reproducible to the bit, so it does not share records with other runs."""
    config = {"seed": 0, "runner": {"root": "x", "batch_size": 4, "deterministic": False}}
    exact = {"seed": 0, "runner": {"root": "y", "batch_size": 8, "deterministic": True}}
    assert digest_of_settings(config) == digest_of_settings({"seed": 0})
    assert digest_of_settings(exact) != digest_of_settings(config)
    assert content_of(exact) == {"seed": 0, "runner": {"deterministic": True}}
    assert is_in_name("runner.deterministic")
    assert is_in_name("method.steps")
    assert not is_in_name("runner.batch_size")
    assert not is_in_name("runner")


def test_a_compiled_run_has_its_own_name() -> None:
    """Compiling changes numbers in their last digits; `auto` depends on the machine."""

    def config(said: object) -> dict[str, object]:
        return {"seed": 0, "backbone": {"dtype": "auto", "compile": said}}

    plain = digest_of_settings({"seed": 0, "backbone": {"dtype": "auto"}})
    assert digest_of_settings(config(False)) == digest_of_settings(config("auto")) == plain
    assert digest_of_settings(config(True)) != plain
    assert is_in_name("backbone.compile")


def test_a_u_nets_height_and_width_are_in_the_name_once_they_are_set() -> None:
    """Square runs keep their names from before there were such settings."""
    unet = {"backbone": {"_target_": "zerocon.backbones.StableDiffusion", "side": 512}}
    null = {"backbone": unet["backbone"] | {"height": None, "width": None}}
    wide = {"backbone": unet["backbone"] | {"side": None, "height": 512, "width": 768}}
    assert digest_of_settings(null) == digest_of_settings(unet)
    assert content_of(wide) == wide
    # Flow models always had them.
    flow = {"backbone": {"_target_": "zerocon.backbones.SD3", "height": None, "width": None}}
    assert content_of(flow) == flow
