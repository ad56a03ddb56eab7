"""CONTRIBUTING.md's examples: each is imported from the page, and works as described."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from tests.methods.edits import given
from zerocon.backbones.base import Backbone
from zerocon.core.cases import Case
from zerocon.core.conditions import Conditions, Draws
from zerocon.core.size import Size
from zerocon.inversions.ddim import DDIMInversion
from zerocon.losses import Losses
from zerocon.methods.ddim import DDIM
from zerocon.methods.zerocon import ZeroCon
from zerocon.metrics.base import Pictures

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def files_of_the_page() -> dict[str, str]:
    """Each code block that follows the name of a file."""
    block = r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```$"
    return dict(re.findall(block, PAGE, re.MULTILINE | re.DOTALL))


FILES = files_of_the_page()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contributed")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def modules(folder: Path) -> Iterator[dict[str, ModuleType]]:
    """Every example's module by its file's name, as if the file stood in the package."""
    loaded: dict[str, ModuleType] = {}
    for file in sorted(folder.rglob("*.py")):
        name = ".".join(file.relative_to(folder).with_suffix("").parts)
        assert name not in sys.modules
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = loaded[file.stem] = module
        spec.loader.exec_module(module)
    yield loaded
    for module in loaded.values():
        del sys.modules[module.__name__]


def test_there_is_one_example_of_each_kind() -> None:
    kinds = ["method", "inversion", "loss term", "metric", "dataset", "backbone"]
    for kind in kinds:
        assert re.search(rf"^## How to add an? {kind}$", PAGE, re.MULTILINE)
    assert len([name for name in FILES if name.endswith(".py")]) == len(kinds)
    assert len([name for name in FILES if name.endswith(".yaml")]) == len(kinds)


def test_examples_pass_the_linter(folder: Path) -> None:
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    for command in (["check", "--ignore", "INP001"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, *config, str(folder)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".yaml")])
def test_a_yaml_file_shows_the_settings_of_its_class(
    modules: dict[str, ModuleType], name: str
) -> None:
    node = yaml.safe_load(FILES[name])
    (node,) = [n for n in (node, *node.values()) if isinstance(n, dict) and "_target_" in n]
    public = node.pop("_target_")
    (choice,) = [
        getattr(module, public.rpartition(".")[2])
        for module in modules.values()
        if hasattr(module, public.rpartition(".")[2])
    ]
    assert public == f"{choice.__module__.rpartition('.')[0]}.{choice.__name__}"
    parameters = inspect.signature(choice).parameters
    for key, value in node.items():
        if key == "defaults" or (key not in parameters and "chosen" in parameters):
            continue
        assert key in parameters
        default = parameters[key].default
        if default is not inspect.Parameter.empty and not str(value).startswith("${"):
            assert value == (list(default) if isinstance(default, tuple) else default)


def test_the_method(modules: dict[str, ModuleType], backbone: Backbone) -> None:
    """A share of 1 is reconstruction, of 0 word swap; a half is neither."""
    switch = modules["prompt_switch"].PromptSwitch

    def edited(method: Any) -> torch.Tensor:
        return given(backbone, method, [0, 1]).run(method)

    source = edited(DDIM(steps=2, guidance=2.0, prompt="source"))
    target = edited(DDIM(steps=2, guidance=2.0))
    torch.testing.assert_close(edited(switch(steps=2, guidance=2.0, share=1.0)), source)
    torch.testing.assert_close(edited(switch(steps=2, guidance=2.0, share=0.0)), target)
    between = edited(switch(steps=2, guidance=2.0, share=0.5))
    assert between.shape == source.shape
    assert not torch.allclose(between, source)
    assert not torch.allclose(between, target)


def test_the_inversion(modules: dict[str, ModuleType], backbone: Backbone) -> None:
    invert = modules["noised"].NoisedInversion()
    asked = given(backbone, DDIM(steps=2), [0, 1], invert=invert)
    path, latents = asked.trajectory.path, asked.trajectory.latents
    assert latents.shape == (3, 2, 4, 16, 16)
    first, second = path.levels[1], path.levels[0]  # from clean to noisy
    noise = (latents[1] - first.signal * latents[0]) / first.noise
    torch.testing.assert_close(second.mix(latents[0], noise), latents[2])


def test_the_loss_term(modules: dict[str, ModuleType], backbone: Backbone) -> None:
    term = modules["feature_distance"].FeatureDistance

    def edited(weight: float) -> torch.Tensor:
        method = ZeroCon(Losses(features=term(weight=weight)), steps=2, guidance=1.0)
        return given(backbone, method, [0]).run(method)

    assert not torch.allclose(edited(0.0), edited(10.0))


def test_the_metric(modules: dict[str, ModuleType]) -> None:
    grey = torch.full((3, 8, 8), 0.5)
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    cases = [Case("a", grey, "", "", mask=mask), Case("b", grey, "", "")]
    edited = torch.stack([grey, grey])
    edited[:, 0] += 0.1  # more red everywhere
    edited[:, 1, :4] = 1.0  # in the region only
    found = modules["colour"].MeanColour()(Pictures.of(cases, edited))["colour_bg"]
    assert found[0].item() == pytest.approx(25.5, abs=1e-4)
    assert found[1].isnan()


def test_the_dataset(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "1.png")
    good = {"image": "1.png", "source": "a red square", "target": "a blue square"}
    (tmp_path / "swaps.json").write_text(json.dumps([good, "nothing"]))
    dataset = modules["swaps"].Swaps(tmp_path, Size.square(8))
    case = dataset.load("1.png")
    assert (case.source_prompt, case.target_prompt) == ("a red square", "a blue square")
    assert case.image.shape == (3, 8, 8)
    assert len(dataset.ids) == 2  # what is no object is a case that fails
    before = dataset.fingerprint
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "1.png")
    assert modules["swaps"].Swaps(tmp_path, Size.square(8)).fingerprint != before


def test_the_backbone(modules: dict[str, ModuleType]) -> None:
    backbone = modules["pixel_flow"].PixelFlow(side=8).load()
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    clean = backbone.encode(pictures)
    torch.testing.assert_close(backbone.decode(clean), pictures)
    prompts = (["a cat", "a dog"], ["a red cat", "a red dog"], ["", ""])
    conditions, draws = Conditions(*map(backbone.embed, prompts)), Draws(0, ["a", "b"])
    trajectory = DDIMInversion(refinements=50)(backbone, clean, conditions, 2, draws)
    back = DDIM(steps=2, guidance=1.0, prompt="source")
    torch.testing.assert_close(
        back(backbone, trajectory, conditions, draws), clean, atol=1e-4, rtol=0
    )
    swapped = DDIM(steps=2, guidance=3.0)(backbone, trajectory, conditions, draws)
    assert swapped.shape == clean.shape
    assert not torch.allclose(swapped, clean, atol=1e-3)
