"""Wrong settings are named before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig

from tests.marks import every
from zerocon.cli import guarded
from zerocon.config import compose
from zerocon.config.compose import sweep
from zerocon.config.files import read_mapping
from zerocon.config.places import CONF
from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.methods.dds import DDS
from zerocon.methods.p2p import P2P
from zerocon.methods.pnp import PnP
from zerocon.methods.sdedit import SDEdit
from zerocon.methods.zerocon import ZeroCon

CHOICES = [
    f"{'+' if folder.name == 'experiment' else ''}{folder.name}={file.stem}"
    for folder in sorted(CONF.iterdir())
    if folder.is_dir()
    for file in sorted(folder.glob("*.yaml"))
]
NEEDED = {
    "dataset=pie_bench": ["dataset.root=somewhere"],
    **{
        f"dataset={name}": ["dataset.root=somewhere"]
        for name in ("pie_bench_pp", "ti2i", "magicbrush", "emu_edit", "celebamask_hq", "pairs")
    },
    "dataset=folder": ["dataset.root=somewhere", "dataset.source=a cat", "dataset.target=a dog"],
    "direction=file": [
        f"direction.path={Path(__file__).parents[1] / 'directions' / 'delta.safetensors'}"
    ],
    "inversion=none": ["method=sdedit"],
    "loss=none": ["method=word_swap"],
}


@pytest.mark.parametrize("choice", every(3, CHOICES))
def test_every_yaml_composes_and_binds_to_its_class(choice: str) -> None:
    compose_settings([choice, *NEEDED.get(choice, [])], worlds="any")


@pytest.mark.parametrize(("backbone", "guidance"), [("shapes", 4.0), ("sd15", 7.5)])
def test_a_backbone_brings_its_usual_settings(backbone: str, guidance: float) -> None:
    usual = compose_settings([f"backbone={backbone}"], worlds="any")
    assert isinstance(usual.method, ZeroCon)
    assert usual.method.guidance == guidance
    assert "usual" not in usual.config
    given = compose_settings([f"backbone={backbone}", "method.guidance=3"], worlds="any")
    assert isinstance(given.method, ZeroCon)
    assert given.method.guidance == 3.0


@pytest.mark.parametrize(
    ("backbone", "site"), [("shapes", "up.2.1.res"), ("sd15", "up.1.1.res"), ("sdxl", "up.0.1.res")]
)
def test_plug_and_plays_feature_site_depends_on_the_backbone(backbone: str, site: str) -> None:
    method = compose_settings([f"backbone={backbone}", "method=pnp"], worlds="edit").method
    assert isinstance(method, PnP)
    assert method.feature_sites == site


@pytest.mark.parametrize(
    ("backbone", "sites", "blend"),
    [
        ("shapes", "self@1/2,self@1/4,self@1/8", "down.*.cross@1/2,up.*.cross@1/2"),
        ("sd15", "self@1/4,self@1/8", "down.*.cross@1/4,up.*.cross@1/4"),
        ("sdxl", "self@1/4,self@1/8", "down.*.cross@1/4,up.*.cross@1/4"),
    ],
)
def test_prompt_to_prompts_sites_depend_on_the_backbone(
    backbone: str, sites: str, blend: str
) -> None:
    method = compose_settings([f"backbone={backbone}", "method=p2p"], worlds="edit").method
    assert isinstance(method, P2P)
    assert (method.self_sites, method.blend_sites) == (sites, blend)


@pytest.mark.parametrize(("backbone", "side"), [("shapes", 16), ("sd15", 64)])
@pytest.mark.parametrize("name", ["dds", "cds"])
def test_descent_scale_depends_on_the_latents_area(backbone: str, side: int, name: str) -> None:
    method = compose_settings([f"backbone={backbone}", f"method={name}"], worlds="edit").method
    assert isinstance(method, DDS)
    assert method.scale / side**2 == 2000 / 64**2


def direction(*overrides: str) -> str:
    config = compose_settings(overrides, worlds="any").config
    return config["direction"]["_target_"].rpartition(".")[2]


def test_zerocon_brings_the_automatic_direction_and_other_methods_the_target_prompt() -> None:
    assert direction() == direction("method=zerocon") == "Caption"
    assert direction("method=pnp") == direction("method=pix2pix_zero") == "WordSwap"
    assert direction("direction=prompt_pair") == "PromptPair"  # what is said wins
    assert direction("direction=word_swap", "method=zerocon") == "WordSwap"
    assert direction("+experiment=pix2pix_zero_published") == "Caption"
    assert [
        direction(*run) for run in sweep(["method=zerocon,word_swap", "seed=1"])
    ] == ["Caption", "WordSwap"]  # fmt: skip


@pytest.mark.parametrize(
    ("backbone", "bank"), [("shapes", "shapes_in_place"), ("sd15", "photo"), ("sd3", "photo")]
)
@pytest.mark.parametrize("name", ["caption", "sentences"])
def test_sentences_suit_the_backbone(backbone: str, bank: str, name: str) -> None:
    given = [f"backbone={backbone}", f"direction={name}"]
    assert compose_settings(given, worlds="any").config["direction"]["bank"] == bank


def test_the_papers_experiment_is_the_default_with_every_choice_pinned() -> None:
    pinned = compose_settings(["+experiment=zerocon_paper"])
    assert pinned.config == compose_settings([]).config
    said = read_mapping(CONF / "experiment" / "zerocon_paper.yaml")
    open_ones = {  # follow from others, or mean nothing here
        "direction": {"captioner", "captioner_revision", "file", "model", "revision", "seed"},
        "inversion": {"steps"},
    }
    for group in ("method", "direction", "inversion"):
        settings = set(pinned.config[group]) - {"_target_"} - open_ones.get(group, set())
        assert settings <= set(said[group]), group
    for term in ("xa", "cut"):
        settings = set(pinned.config["loss"][term]) - {"_target_", "weight", "n_patches"}
        pinned_ones = set(said["loss"][term]) | {"background_below", "attention_sites"}
        assert settings <= pinned_ones, term
    assert {"xa_weight", "cut_weight", "n_patches"} <= set(said["loss"])


def test_the_default_run() -> None:
    settings = compose_settings(["loss.cut_weight=0.5"])
    assert isinstance(settings.method, ZeroCon)
    assert settings.method.loss.terms["cut"].weight == 0.5
    assert settings.directory.parent == Path("outputs")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method.stepz=10"], r"no setting 'method.stepz'; did you mean method.steps"),
        (["metod=ddim"], r"no setting 'metod'; did you mean method\?"),
        (["stepz=3"], r"did you mean speed.steps or inversion.steps or method.steps"),
        (["method=zeroconn"], r"no method=zeroconn; did you mean zerocon or zerocon_plus\? There"),
        (["method=sdedit", "method.strenght=0.5"], r"did you mean method.strength"),
        (["+method.strength=0.5"], r"no setting 'method.strength'"),
        (["method=sdedt"], r"(?s)sdedt.*sdedit"),
        (["method.steps=0"], r"method.steps is 0; it must be between 1 and 1000"),
        (["method.steps=lots"], r"method.steps is 'lots'; it must be a whole number"),
        (["method.steps=2.5"], r"method.steps is 2.5; it must be a whole number"),
        (["method.guidance=-1"], r"method.guidance is -1; it must be between 0 and 100"),
        (["method=sdedit", "method.strength=1.5"], r"method.strength is 1.5"),
        (["method=word_swap", "method.prompt=both"], r"method.prompt is 'both'; it must be one of"),
        (["seed=-1"], r"seed is -1; it must be at least 0"),
        (["runner.batch_size=0"], r"runner.batch_size is 0; it must be at least 1"),
        (["runner.batch_size=two"], r"runner.batch_size is 'two'"),
        (["backbone.dtype=float8"], r"backbone.dtype is 'float8'; it must be one of: auto"),
        (["dataset=pie_bench"], r"dataset.root is needed"),
        (["dataset.limit=few"], r"dataset.limit is 'few'; it must be a whole number or null"),
        (["tracker=wandb", "tracker.mode=sometimes"], r"tracker.mode is 'sometimes'"),
        (["name="], r"name is ''"),
        (["name=a/b"], r"name is 'a/b'"),
    ],
)
def test_what_is_wrong_is_named(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose_settings(overrides)


def test_an_override_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match="would have no effect"):
        compose_settings(["method=sdedit", "inversion=ddim"])
    with pytest.raises(ConfigError, match="what works: inversion=ddim"):
        compose_settings(["method=word_swap", "inversion=none"])
    assert isinstance(compose_settings(["method=sdedit"]).method, SDEdit)


@pytest.mark.parametrize(
    "override",
    [
        "runner.batch_size=3",
        "runner.root=elsewhere",
        "backbone.device=cpu",
        "tracker=wandb",
        "dataset.root=here",
    ],
)
def test_settings_of_execution_do_not_change_the_name(override: str) -> None:
    assert compose_settings([override]).directory.name == compose_settings([]).directory.name


@pytest.mark.parametrize(
    "override", ["seed=1", "method.guidance=3", "dataset.limit=2", "metrics=published"]
)
def test_settings_that_change_numbers_change_the_name(override: str) -> None:
    assert compose_settings([override]).directory.name != compose_settings([]).directory.name


def test_every_run_of_a_sweep_is_checked_first(capsys: pytest.CaptureFixture[str]) -> None:
    runs = list(sweep(["method.guidance=1,2,3", "seed=range(0,2)"]))
    assert len(runs) == 6
    assert ("method.guidance=3", "seed=1") in runs
    assert guarded(["run", "-m", "method.guidance=1,2,300"], "run.py") == 2
    assert "method.guidance is 300" in capsys.readouterr().err


def test_hydras_own_settings_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless an override sets one of them. The rest of the config is the same either way."""
    given: list[list[str]] = []
    real = compose.compose

    def spied(name: str, overrides: list[str]) -> DictConfig:
        given.append(overrides)
        return real(name, overrides=overrides)

    monkeypatch.setattr(compose, "compose", spied)
    own = ["method=p2p", "method.steps=7"]
    short = compose.compose_config(own)
    whole = compose.compose_config([*own, "hydra/launcher=basic"])
    assert [len(overrides) for overrides in given] == [len(own) + 8, len(own) + 1]
    assert short == whole


def test_a_users_file_may_set_hydras_own_settings(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /hydra/job_logging: disabled\n"
        "hydra:\n  launcher: {n_jobs: 2}\n"
        "method:\n  steps: 7\n"
    )
    overrides = [*compose.in_folders([tmp_path]), "+experiment=mine"]
    assert compose.plain(compose.compose_config(overrides))["method"]["steps"] == 7
