"""`speed`: approximations of an edit by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.edits import given
from tests.tiny import losses
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.core.naming import LATER, digest_of_settings
from zerocon.inversions.ddim import DDIMInversion
from zerocon.methods.zerocon import ZeroCon

ROWS = {  # rows of four steps: inversion, forward, backward
    ("zerocon",): (4, 16, 4),
    ("zerocon", "method.reevaluate=false"): (4, 12, 4),
    ("zerocon", "method.reevaluate=false", "method.every=2", "inversion.every=2"): (2, 12, 2),
    ("pix2pix_zero",): (4, 24, 8),
    ("pix2pix_zero", "method.reevaluate=false"): (4, 16, 8),
    ("pix2pix_zero", "method.reevaluate=false", "method.every=2", "inversion.every=2"): (2, 16, 4),
}
STEPS = {"exact": 50, "balanced": 30, "fast": 19}


@pytest.mark.parametrize("choice", [pytest.param(c, id=" ".join(c)) for c in ROWS])
def test_what_an_approximation_saves(
    backbone: StableDiffusionBackbone, choice: tuple[str, ...]
) -> None:
    method, *more = choice
    settings = compose_settings(
        [f"method={method}", "backbone=sd15", "method.steps=4", *more], worlds="any"
    )
    before = backbone.evaluations.forward
    edit = given(backbone, settings.method, [0], settings.inversion)
    inverted, back = backbone.evaluations.forward, backbone.evaluations.backward
    edit.run(settings.method)
    counted = backbone.evaluations
    rows = inverted - before, counted.forward - inverted, counted.backward - back
    assert rows == ROWS[choice]


@pytest.mark.parametrize("method", ["zerocon", "zerocon_plus", "pix2pix_zero"])
def test_a_speed_chooses_the_steps(method: str) -> None:
    for speed, steps in STEPS.items():
        composed = compose_settings([f"method={method}", f"speed={speed}"], worlds="any")
        assert composed.config["method"]["steps"] == steps
        assert (composed.config["method"]["gradient_scale"] > 1) == (steps < 50)


def test_a_speed_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match="speed has no effect"):
        compose_settings(["method=sdedit", "speed=fast"])
    with pytest.raises(ConfigError, match="speed has no effect"):
        compose_settings(["speed=fast", "method.steps=20"])
    compose_settings(["method=sdedit", "speed=exact"])


def test_exact_runs_keep_their_name() -> None:
    config = compose_settings(["method=zerocon", "direction=word_swap"]).config
    older = {
        group: dict(node) if isinstance(node, dict) else node for group, node in config.items()
    }
    for name in LATER:
        group, _, field = name.partition(".")
        del older[group][field]
    assert digest_of_settings(older) == digest_of_settings(config)
    faster = {**config, "method": {**config["method"], "every": 2}}
    assert digest_of_settings(faster) != digest_of_settings(config)


def test_a_step_without_a_descent_is_plain(backbone: StableDiffusionBackbone) -> None:
    """With more steps between two descents than there are steps, only the first one descends."""
    both = losses(weight=0.1, n_patches=16)
    method = ZeroCon(both, steps=3, guidance=3.0, every=3)
    edit = given(backbone, method, [0])
    seen: list[int] = []
    both.watcher = lambda step, _values: seen.append(step)
    edit.run(method)
    both.watcher = None
    assert seen == [0]


def test_an_evaluation_serves_two_steps(backbone: StableDiffusionBackbone) -> None:
    """The latents between lie on the way of a longer step."""
    edit = given(backbone, ZeroCon(losses(), steps=4, guidance=3.0), [0], DDIMInversion(every=2))
    latents, up = edit.trajectory.latents, edit.trajectory.path.upwards.levels
    for first in (0, 2):
        here, between, end = up[first : first + 3]
        guess = backbone.predict(latents[first], end, edit.conditions.source)
        guess = guess.seen_from(latents[first], here)
        torch.testing.assert_close(latents[first + 1], guess.at(between))
        torch.testing.assert_close(latents[first + 2], guess.at(end))


def test_the_folder_has_the_same_settings_in_every_file() -> None:
    folder = Path(__file__).parents[2] / "conf" / "speed"
    keys = {
        file.stem: [
            line.partition(":")[0] for line in file.read_text().splitlines() if line[0] != "#"
        ]
        for file in folder.glob("*.yaml")
    }
    assert len({tuple(names) for names in keys.values()}) == 1
    assert set(keys) == {"exact", "balanced", "fast"}
