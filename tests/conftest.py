"""Shared by all tests: no network, separate caches, small models made once per session."""

from __future__ import annotations

import os
import signal

# A shell's background job ignores Ctrl-C, and so would all processes that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's library is imported, below
os.environ["WANDB_MODE"] = "offline"

import pytest
import torch

from tests import shape_checks

shape_checks.install()  # before the modules that it checks are imported

from tests.tiny import tiny_backbone, tiny_parts
from zerocon.backbones.loading import Parts
from zerocon.backbones.stable_diffusion import StableDiffusionBackbone

# Tests run on as many workers as there are cores; more threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    base = tmp_path_factory.getbasetemp().parent / f"zerocon-cache-{os.getpid()}"
    monkeypatch.setenv("ZEROCON_CACHE", str(base))


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return tiny_parts(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def backbone(parts: Parts) -> StableDiffusionBackbone:
    return tiny_backbone(parts)
