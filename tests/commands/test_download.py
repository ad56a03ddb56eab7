"""`zerocon download`, against a hub that is a folder on this machine."""

from __future__ import annotations

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file

from zerocon.cli import guarded
from zerocon.commands.catalogue import GROUPS, ITEMS

COMMIT = "0123456789012345678901234567890123456789"
SD15 = [
    "model_index.json", "README.md", "v1-5-pruned.safetensors", "v1-5-pruned.ckpt",
    "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin",
    "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json", "safety_checker/model.safetensors",
]  # fmt: skip


class Hub:
    """Repositories as folders, in place of huggingface_hub's functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        self.gated = False

    def put(self, repository: str, *files: str) -> Path:
        place = self.folder / repository
        for name in files:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(name.encode())
        return place

    def repo_info(self, repository: str, **asked: Any) -> SimpleNamespace:
        place = self.folder / repository
        if not place.is_dir():
            raise ConnectionError("no network")
        files = [f for f in sorted(place.rglob("*")) if f.is_file()]
        siblings = [
            SimpleNamespace(rfilename=f.relative_to(place).as_posix(), size=f.stat().st_size)
            for f in files
        ]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def snapshot_download(self, repository: str, **asked: Any) -> str:
        if self.gated:
            raise GatedRepoError("403", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        assert asked["revision"] == COMMIT
        for name in asked["allow_patterns"]:
            for file in (self.folder / repository).rglob("*"):
                inside = file.relative_to(self.folder / repository).as_posix()
                if file.is_file() and fnmatchcase(inside, name):
                    target = asked["local_dir"] / inside
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, target)
                    self.fetched.append(inside)
        return str(asked["local_dir"])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setenv("ZEROCON_DOWNLOADS", str(tmp_path / "downloads"))
    return hub


def download(*words: str) -> int:
    return guarded(["download", *words], "zerocon")


def test_only_the_parts_that_are_needed_are_fetched(hub: Hub, tmp_path: Path) -> None:
    hub.put(ITEMS["sd15"].repository, *SD15)
    assert download("sd15", "--yes") == 0
    assert sorted(hub.fetched) == sorted([
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json", "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json", "text_encoder/model.safetensors",
        "tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ])  # fmt: skip
    note = json.loads((tmp_path / "downloads" / "sd15.download.json").read_text())
    assert note["commit"] == COMMIT
    assert note["licence"] == "CreativeML OpenRAIL-M"


def test_the_half_precision_files_are_fetched_on_request(hub: Hub) -> None:
    hub.put(ITEMS["sd15"].repository, *SD15)
    assert download("sd15", "--variant", "fp16", "--yes") == 0
    weights = [name for name in hub.fetched if name.endswith(".safetensors")]
    assert len(weights) == 3
    assert all(".fp16." in name for name in weights)


def test_a_model_in_several_files_is_fetched_whole(hub: Hub) -> None:
    parts = [f"{p}/{s}.safetensors" for p, s in (ITEMS["sd3"].parts or {}).items() if s]
    shards = [f"text_encoder_3/model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    half = ["text_encoder_3/model.fp16-00001-of-00002.safetensors"]
    index = ["text_encoder_3/model.safetensors.index.json"]
    other = ["text_encoder_3/model.safetensors.index.fp16.json"]
    single = [name for name in parts if "text_encoder_3" not in name]
    hub.put(ITEMS["sd3"].repository, *single, *shards, *half, *index, *other)
    assert download("sd3", "--yes") == 0
    assert {*hub.fetched} == {*single, *shards, *index}


def test_a_second_time_nothing_is_fetched(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.put(ITEMS["sd15"].repository, *SD15)
    assert download("sd15", "--yes") == 0
    hub.fetched.clear()
    assert download("sd15", "--yes") == 0
    assert not hub.fetched
    assert "nothing to download" in capsys.readouterr().out


def test_a_dry_run_shows_and_fetches_nothing(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(ITEMS["sd15"].repository, *SD15)
    assert download("sd15", "--dry-run") == 0
    assert not (tmp_path / "downloads").exists()
    shown = capsys.readouterr().out
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5@0123456" in shown
    assert "CreativeML OpenRAIL-M" in shown


def test_a_dry_run_without_a_network_shows_what_is_known(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download("sd15", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "about 4.3 GB" in shown
    assert "can't be reached" in shown


def test_it_asks_first(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(ITEMS["sd15"].repository, *SD15)
    assert download("sd15") == 2  # nobody can answer
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert download("sd15") == 0
    assert not hub.fetched
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert download("sd15") == 0
    assert hub.fetched


def test_a_gated_model_says_where_to_accept_its_licence(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.gated = True
    stems = ITEMS["flux"].parts or {}
    hub.put(ITEMS["flux"].repository, *[f"{p}/{s}.safetensors" for p, s in stems.items() if s])
    assert download("flux", "--yes") == 2
    said = capsys.readouterr().err
    assert "https://huggingface.co/black-forest-labs/FLUX.1-dev" in said
    assert "hf auth login" in said


def test_a_repository_without_safe_weights_is_refused(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(ITEMS["sd15"].repository, *[n for n in SD15 if not n.startswith("vae/diff")])
    assert download("sd15", "--yes") == 2
    assert "no safetensors weights of this kind for vae" in capsys.readouterr().err


def test_a_pickled_model_is_converted(hub: Hub, tmp_path: Path) -> None:
    """BLIP is published as a pickle only, which nothing here reads at a run."""
    item = ITEMS["captioner"]
    place = hub.put(item.repository, "config.json", "preprocessor_config.json", "vocab.txt")
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "tied": shared}, place / item.convert)
    assert download("captioner", "--yes") == 0
    folder = tmp_path / "downloads" / item.folder
    assert not (folder / item.convert).exists()
    torch.testing.assert_close(load_file(folder / "model.safetensors")["tied"], shared)
    hub.fetched.clear()
    assert download("captioner", "--yes") == 0
    assert not hub.fetched


def test_a_network_of_torchvision_is_checked_by_its_digest(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, str]] = []

    def fetch(url: str, file: str, hash_prefix: str) -> None:
        asked.append((url, file, hash_prefix))
        Path(file).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert download("squeezenet", "--yes") == 0
    ((url, file, digest),) = asked
    assert url.endswith("/squeezenet1_1-b8a52dc0.pth")
    assert Path(file) == tmp_path / "downloads" / "squeezenet1_1-b8a52dc0.pth"
    assert digest == "b8a52dc0"
    assert download("squeezenet", "--yes") == 0
    assert len(asked) == 1


def test_what_has_no_address_is_explained(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download("pie_bench") == 0
    assert "forms.gle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [(["sd99"], "sd15"), (["clip", "--variant", "fp16"], "not published in two precisions")],
)
def test_a_wrong_request_is_refused(
    words: list[str], said: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(*words) == 2
    assert said in capsys.readouterr().err


def test_too_little_room_is_noticed_first(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(ITEMS["sd15"].repository, *SD15)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert download("sd15", "--yes") == 2
    assert "GB free" in capsys.readouterr().err
    assert not hub.fetched


def test_without_a_name_everything_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert download() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*ITEMS, *GROUPS])


def test_pinned_revisions_are_commits() -> None:
    for item in ITEMS.values():
        assert item.revision == "main" or len(item.revision) == len(COMMIT)
