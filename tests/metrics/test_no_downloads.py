"""No judge reaches the network by itself; what is missing is named with its setting."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

from zerocon.config.settings import compose_settings
from zerocon.core.checks import ConfigError
from zerocon.core.weights import WeightsError
from zerocon.metrics.clip import ClipScore
from zerocon.metrics.lpips import PerceptualDistance
from zerocon.metrics.structure import StructureDistance


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("it looked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("net", "fetch"), [("squeeze", "judges"), ("alex", "alexnet"), ("vgg", "vgg16")]
)
def test_lpips_names_its_setting(
    net: str, fetch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ConfigError, match=rf"metrics\.lpips\.path is null.*download {fetch}`"):
        PerceptualDistance(net=net)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"metrics\.lpips\.path is .*no file"):
        PerceptualDistance(net=net, path=tmp_path / "absent.pth")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "setting"),
    [(ClipScore, "metrics.clip.path"), (StructureDistance, "metrics.structure.path")],
)
def test_other_judges_name_theirs(
    metric: type[ClipScore | StructureDistance], setting: str, tmp_path: Path
) -> None:
    for path in ("downloads/absent", str(tmp_path / "absent.safetensors"), "an/id"):
        with pytest.raises(ConfigError) as caught:
            metric(path=path)
        assert setting in str(caught.value)
        assert "zerocon download judges" in str(caught.value)


@pytest.mark.parametrize("metric", [ClipScore, StructureDistance])
def test_a_hub_id_is_only_looked_up_in_the_cache(
    metric: type[ClipScore | StructureDistance],
) -> None:
    with pytest.raises(WeightsError, match=r"hf download an/id --revision 0123"):
        metric(path="an/id", revision="0123")


def test_the_preset_knows_where_downloads_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["backbone=sd15", "direction=word_swap", "method=pnp", "dataset=pie_bench",
             "dataset.root=x", "metrics=sd"]  # fmt: skip
    metrics = compose_settings(asked).config["metrics"]
    assert metrics["protocol"] == "published"
    assert metrics["clip"]["path"] == "downloads/clip-vit-large-patch14"
    monkeypatch.setenv("ZEROCON_DOWNLOADS", str(tmp_path))
    config = compose_settings(asked).config
    assert config["metrics"]["lpips"]["path"] == f"{tmp_path}/squeezenet1_1-b8a52dc0.pth"
    assert config["metrics"]["truth"]["path"] == f"{tmp_path}/squeezenet1_1-b8a52dc0.pth"
    assert config["backbone"]["path"] == f"{tmp_path}/sd15"
