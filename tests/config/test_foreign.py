"""Untrusted runs, tables and experiments execute no code and read no other files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.marks import every
from zerocon.cli import guarded
from zerocon.config.compose import compose_config, plain
from zerocon.config.experiments import read_experiment
from zerocon.config.settings import compose_settings, stored_config, stored_settings
from zerocon.core.checks import ConfigError
from zerocon.core.naming import digest
from zerocon.core.records import Record
from zerocon.core.registry import find, register, sources_of, use_plugins
from zerocon.ledger.origin import Origin
from zerocon.ledger.run_directory import RunDirectory


@pytest.fixture
def flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that an exploit would create, and a module that creates it when imported."""
    monkeypatch.setenv("SECRET", "the-secret")
    monkeypatch.syspath_prepend(str(tmp_path / "evil"))
    (tmp_path / "evil").mkdir()
    file = tmp_path / "touched"
    source = f"import pathlib\npathlib.Path({str(file)!r}).touch()\nMethod = dict\n"
    (tmp_path / "evil" / "evil_on_import.py").write_text(source)
    return file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of one case, as if downloaded."""
    from PIL import Image

    overrides = ["method=sdedit", "dataset.limit=1", f"runner.root={tmp_path / 'outputs'}"]
    config = plain(compose_config(overrides))
    directory = tmp_path / "outputs" / "run-0000000000"
    directory.mkdir(parents=True)
    named = {"name": "made up", "fingerprint": "0"}
    begun = RunDirectory(directory)
    begun.write_origin(Origin("run", ["a"], [], "masked", named, named, {}, False, {}))
    image, checksum = begun.save_picture("a", Image.new("RGB", (64, 64)))
    with begun.log() as log:
        log.append_all([Record(case="a", status="ok", image=image, sha256=checksum)])
    begun.write_config(config)
    return directory


def changed(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        *groups, last = path.split(".")
        node: Any = config
        for group in groups:
            node = node[group]
        node[last] = value

    return change


def evil(flag: Path) -> list[dict[str, Any]]:
    return [
        {"_target_": "os.system", "command": f"touch {flag}"},
        {"_target_": "evil_on_import.Method"},
        {"_target_": "zerocon.methods.evil_on_import.Method"},
        {"_target_": "zerocon.cli.main", "arguments": ["cache", "--prune", "0"]},
        {"_target_": "builtins.exec", "_args_": [f"open({str(flag)!r}, 'w')"]},
    ]


PLACES = [
    "method", "inversion", "direction", "loss", "dataset", "backbone", "tracker", "metrics.clip",
    "metrics.more", "dataset.ids", "method.steps", "runner.root", "seed", "name",
]  # fmt: skip


@pytest.mark.parametrize("command", ["reproduce", "verify"])
@pytest.mark.parametrize("place", ["dataset", "metrics.clip", "dataset.ids"])
def test_a_downloaded_run_executes_no_code(
    run: Path, flag: Path, command: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for node in evil(flag):
        changed(run, put(place, node))
        assert guarded([command, str(run)], "zerocon") == 2
        said = capsys.readouterr().err
        assert node["_target_"] in said
        assert len(said.strip().splitlines()) <= 2
        assert not flag.exists()


@pytest.mark.parametrize("place", every(3, PLACES))
def test_a_stored_config_can_not_name_unregistered_classes(
    run: Path, flag: Path, place: str
) -> None:
    before = (run / "config.yaml").read_text()
    for node in evil(flag):
        for value in (node, [node], {"deeper": node}):
            (run / "config.yaml").write_text(before)
            changed(run, put(place, value))
            with pytest.raises(ConfigError):
                stored_settings(run)
            assert not flag.exists()


def test_the_message_says_how_to_register_a_class(run: Path) -> None:
    changed(run, put("method", {"_target_": "mine.Method"}))
    with pytest.raises(ConfigError, match=r"method\._target_: mine\.Method .*--plugin MODULE"):
        stored_settings(run)


@pytest.mark.parametrize(
    "text",
    [
        "name: ${oc.env:SECRET}",
        "name: x${oc.env:SECRET}",
        "dataset: {root: '${oc.env:SECRET}'}",
        "dataset: {ids: [a, '${oc.env:SECRET}']}",
        "'${oc.env:SECRET}': 1",
        "name: !!python/object/apply:os.system [touch]",
        "name: !!python/name:os.system",
        "name: !!python/object/new:os.system [touch]",
        "name: !path x",
        "- a list",
        "just text",
        "",
        "a: [",
        "\x00",
        "a: &a [*a]",
        "date: 2020-02-30",
    ],
)
def test_untrusted_yaml_is_plain_data(run: Path, text: str, flag: Path) -> None:
    (run / "config.yaml").write_text(text)
    for command in ("reproduce", "verify"):
        assert guarded([command, str(run)], "zerocon") == 2
    assert not flag.exists()


def test_a_small_file_can_not_expand_to_a_large_value(run: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    (run / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="too many"):
        stored_config(run)
    (run / "config.yaml").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        stored_config(run)
    (run / "config.yaml").write_bytes(b"a: 1\n" * 300_000)
    with pytest.raises(ConfigError, match="bytes"):
        stored_config(run)


def test_a_pipe_does_not_block(run: Path) -> None:
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    with pytest.raises(ConfigError, match="is no file"):
        stored_config(run)


def test_a_stored_config_of_an_earlier_version_is_understood(run: Path) -> None:
    changed(run, put("method._target_", "zerocon.methods.sdedit.SDEdit"))
    changed(run, put("loss._target_", "zerocon.guidance.NoLosses"))
    settings = stored_settings(run)
    assert settings.config["method"]["_target_"] == "zerocon.methods.SDEdit"
    flat = {"_target_": "zerocon.guidance.Losses", "xa_weight": 0.1, "xa_sites": "cross",
            "cut_weight": 0.5, "cut_sites": "up.*.self", "n_patches": 64, "tau": 0.1}  # fmt: skip
    changed(run, put("loss", flat))
    terms = stored_config(run)["loss"]
    assert terms["xa"] == {"_target_": "zerocon.losses.CrossAttention", "weight": 0.1,
                           "sites": "cross"}  # fmt: skip
    assert terms["cut"]["n_patches"] == 64
    assert (terms["cut"]["weight"], terms["cut"]["tau"]) == (0.5, 0.1)


def test_settings_of_execution_may_be_overridden(run: Path) -> None:
    config = stored_config(run, ["dataset.root=/a b/c", "backbone.device=cpu", "runner.workers=3"])
    assert config["dataset"]["root"] == "/a b/c"
    assert config["runner"]["workers"] == 3
    assert stored_config(run, ["tracker=none"])["tracker"] == {
        "_target_": "zerocon.trackers.NoTracker"
    }
    with pytest.raises(ConfigError, match="would change the run's results"):
        stored_config(run, ["method.steps=3"])
    with pytest.raises(ConfigError, match="would change the run's results"):
        stored_config(run, ["method._target_=os.system"])
    with pytest.raises(ConfigError, match="would change the run's results"):
        stored_config(run, ["runner.deterministic=true"])
    changed(run, put("runner", stored_config(run)["runner"] | {"deterministic": True}))
    assert stored_config(run, ["runner=local"])["runner"]["deterministic"] is True


FOREIGN = [
    "inversion._target_=os.system",
    "+method._target_=os.system",
    "++method._target_=os.system",
    "method={_target_: os.system, command: ls}",
    "+loss.more={_target_: os.system}",
    "loss.cut.patch_sizes=[{_target_: os.system}]",
    "metrics.clip={_target_: os.system}",
    "dataset.ids=[{_target_: evil_on_import.Method}]",
    "method._target_=evil_on_import.Method",
    "hydra/launcher=joblib",
    "hydra.launcher._target_=os.system",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.searchpath=[file:///tmp]",
    "hydra.job.env_set.PATH=x",
    "+hydra/job_logging=x",
    "dataset.root=${oc.env:SECRET}",
    "name=${oc.env:SECRET}",
    "method=../../somewhere/evil",
    "method=/somewhere/evil",
    "inversion@method=ddim",
    "~method",
    "method.steps",
    "",
    "name=a,b",
]


@pytest.mark.parametrize("override", every(4, FOREIGN))
def test_an_experiment_executes_no_code(
    tmp_path: Path, flag: Path, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"question": "why?", "expected": "x", "cost": "x", "runs": {"a": [override]}}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(content))
    assert guarded(["experiment", str(tmp_path / "theirs.yaml")], "zerocon") == 2
    said = capsys.readouterr().err
    assert "the-secret" not in said
    assert len(said.strip().splitlines()) <= 2
    assert not flag.exists()


@pytest.mark.slow
def test_a_sweep_or_a_search_executes_no_code(tmp_path: Path, flag: Path) -> None:
    rest: dict[str, Any] = {"question": "why?", "expected": "x", "cost": "x"}
    space = {"inversion._target_": {"choices": ["os.system", "os.popen"]}}
    for more in (
        {"sweep": {"inversion._target_": ["os.system"]}},
        {"sweep": {"hydra.launcher._target_": ["os.system"]}},
        {"sweep": {"seed": list(range(200)), "method.steps": list(range(1, 200))}},
        {"overrides": [{"_target_": "os.system"}], "runs": {"a": []}},
        {"runs": {"${oc.env:SECRET}": []}},
        {"runs": {"a": "method=p2p"}},
        {"overrides": ["dataset.split=validation"],
         "search": {"objectives": ["lpips_bg"], "space": space}},
    ):  # fmt: skip
        (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(rest | more))
        name = str(tmp_path / "theirs.yaml")
        assert guarded(["experiment", name, f"runner.root={tmp_path}"], "zerocon") == 2, more
        assert not flag.exists()


def test_the_command_line_is_trusted(tmp_path: Path) -> None:
    content = {"question": "why?", "expected": "x", "cost": "x", "runs": {"a": ["method=sdedit"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "conf" / "method").mkdir(parents=True)
    mine = "_target_: zerocon.methods.SDEdit\nsteps: 7\nguidance: 1.0\nstrength: 0.5\n"
    (tmp_path / "conf" / "method" / "mine.yaml").write_text(mine)
    more = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", "method=mine", "inversion=none"]
    (settings,) = read_experiment(str(tmp_path / "mine.yaml")).settings(more)
    assert settings.method.steps == 7


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "own_helper.py").write_text("HALF = 0.5\n\n\ndef half():\n    return HALF\n")
    source = (
        "import dataclasses\nimport os\n\nimport zerocon\nfrom own_helper import half\n"
        "from zerocon.methods.sdedit import SDEdit\n\n\n"
        "@zerocon.register('method')\n@dataclasses.dataclass(frozen=True)\n"
        "class Half(SDEdit):\n    strength: float = half()\n\n\nclass Hidden(SDEdit):\n    pass\n"
    )
    (folder / "own_plugin.py").write_text(source)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ZEROCON_PLUGINS", "")
    use_plugins(["own_plugin"])
    return folder


OWN = ["method=sdedit", "method._target_=own_plugin.Half"]


def test_only_a_plugins_registered_classes_are_known(plugin: Path) -> None:
    settings = compose_settings(OWN)
    assert type(settings.method).__name__ == "Half"
    assert os.environ["ZEROCON_PLUGINS"] == "own_plugin"  # for the processes that work for us
    for name in ("own_plugin.Hidden", "own_plugin.os.system", "own_plugin.SDEdit"):
        with pytest.raises(ConfigError, match="is not a known method"):
            find("method", name)
    with pytest.raises(ConfigError, match="is a method, not a metric"):
        find("metric", "own_plugin.Half")


def test_the_sources_of_ones_own_classes_are_known(plugin: Path) -> None:
    config = compose_settings(OWN).config
    assert [file.name for file in sources_of(config)] == ["own_helper.py", "own_plugin.py"]
    assert sources_of(compose_settings([]).config) == []


def test_a_class_is_registered_as_a_kind() -> None:
    with pytest.raises(ConfigError, match="no such kind; the kinds are: backbone"):
        register("sampler")
    mine = type("Mine", (), {"__module__": "zerocon.methods"})
    with pytest.raises(ConfigError, match="zerocon's own names are taken"):
        register("method")(mine)


def test_equal_numbers_are_one_setting() -> None:
    settings = [compose_settings([f"method.guidance={g}", f"seed={s}"]) for g in ("3", "3.0")
                for s in ("2", "2.0")]  # fmt: skip
    assert len({s.directory for s in settings}) == 1
    assert json.dumps(settings[0].config) == json.dumps(settings[3].config)
    assert digest({"a": [4.0, {"b": 1e3}]}) == digest({"a": [4, {"b": 1000}]})
    assert digest({"a": 4.5}) != digest({"a": 4})
    assert digest({"a": True}) != digest({"a": 1})
