"""The settings that the page offers are the classes' own, and become overrides."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from zerocon.api import settings_of_edit
from zerocon.core.checks import ConfigError, in_range, noting
from zerocon.demo.fields import Field, Given, fields_of, method_files, method_words, typed_overrides

GIVEN = Given()


def by_name(method: str) -> dict[str, Field]:
    return {field.name: field for field in fields_of(GIVEN, method)}


def test_bounds_are_noted_where_a_class_checks_them() -> None:
    with noting() as bounds:
        in_range("a", 1, 0, 2)
        with pytest.raises(ConfigError):
            in_range("b", -1, 0)
    in_range("c", 1)
    assert bounds == {"a": (0, 2), "b": (0, math.inf)}


def test_they_have_the_bounds_and_choices_of_the_class() -> None:
    fields = by_name("zerocon")
    steps = fields["method.steps"]
    assert (steps.kind, steps.default, steps.low, steps.high) == ("whole", 50, 1, 1000)
    assert fields["method.guidance"].default == 4  # of the shapes world, from its config
    assert fields["method.update"].choices == ("paper", "per_branch")
    assert fields["method.reevaluate"].kind == "switch"
    patches = fields["loss.n_patches"]  # a short name: the bounds are those of what follows it
    assert (patches.kind, patches.low, patches.high) == ("whole", 2, math.inf)
    assert fields["loss.cut_weight"].low == 0
    first = [field.name for field in fields.values() if field.first]
    assert first == [
        "method.steps", "method.guidance", "loss.xa_weight", "loss.cut_weight", "loss.n_patches",
    ]  # fmt: skip


def test_they_are_those_of_the_method() -> None:
    fields = by_name("p2p")
    assert (fields["method.cross"].low, fields["method.cross"].high) == (0, 1)
    assert not any(name.startswith("loss.") for name in fields)
    assert "method.self_sites" not in fields  # a text: typed as a further setting
    assert "direct" in fields["inversion"].choices
    assert "none" not in fields["inversion"].choices  # it needs a trajectory


@pytest.mark.parametrize("method", ["zerocon", "masactrl", "sdedit"])
def test_every_field_can_be_set(method: str) -> None:
    changed: list[str] = []
    for field in by_name(method).values():
        assert field.override(field.default) is None
        assert field.override(None) is None  # an emptied field
        other = {
            "switch": not field.default,
            "choice": next((c for c in field.choices if c != field.default), None),
        }.get(field.kind, max(field.low, 0.5) if field.kind == "number" else 3)
        if field.name != "inversion" and field.override(other):
            changed.append(str(field.override(other)))
    assert len(changed) >= 3
    settings_of_edit("a red circle", [f"method={method}", *changed])


def test_numbers_are_written_as_one_would() -> None:
    whole, number = Field("method.steps", "whole", 50), Field("method.guidance", "number", 4)
    assert whole.override(20.0) == "method.steps=20"
    assert number.override(0.1 + 0.2) == "method.guidance=0.3"
    assert Field("method.reevaluate", "switch", True).override(False) == "method.reevaluate=false"


def test_every_method_is_there_and_described(tmp_path: Path) -> None:
    files = method_files()
    assert next(iter(files)) == "zerocon"
    assert {"p2p", "pnp", "masactrl"} < set(files)
    assert "kv_edit" not in files  # it edits within a mask
    assert all(method_words(file) for file in files.values())
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("_target_: mine.Mine\n")
    assert method_words(method_files([tmp_path])["mine"]) == ""


@pytest.mark.parametrize(
    "text",
    [
        "backbone.path=/etc", "direction=file", "direction.captioner=/etc", "method.steps",
        "hydra.run.dir=x", "loss.cut.tau=${oc.env:HOME}", "'method.steps=3", "runner.root=/",
    ],
)  # fmt: skip
def test_what_is_typed_only_sets_values_of_the_edit(text: str) -> None:
    with pytest.raises(ConfigError):
        typed_overrides(text)


def test_what_is_typed() -> None:
    text = "loss.cut.tau=0.1  'method.self_sites=self@1/2' direction=word_swap"
    wanted = ["loss.cut.tau=0.1", "method.self_sites=self@1/2", "direction=word_swap"]
    assert typed_overrides(text) == wanted


def test_the_command_chooses_what_all_edits_share() -> None:
    given = Given.read(["backbone=sd15", "backbone.path=sd15", "method=pnp", "seed=3"])
    assert given.method == "pnp"
    assert given.of("p2p") == ["method=p2p", "backbone=sd15", "backbone.path=sd15", "seed=3"]
    with pytest.raises(ConfigError, match="set on the page"):
        Given.read(["method.steps=3"])
    blip = Given.read(["backbone=sd15", "backbone.path=x", "direction.captioner=blip"])
    assert blip.of("zerocon")[-1] == "direction.captioner=blip"
    assert "direction.captioner=blip" not in blip.of("p2p")  # which has no caption
